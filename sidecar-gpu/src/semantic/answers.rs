//! Answers over a restart, where they are kept in memory: a question whose answer is gone is of no
//! use.
//!
//! Written when a sidecar ends in good order, and removed before it is read: so nothing comes back
//! that was dropped or invalidated since. Answers with tags are left out, because an invalidation
//! that came while nobody was there to hear it could not be told from none. A line that names the
//! version, then key, length and bytes of each, as stores keep them, with a checksum of its own.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use sluice_wire::limit;

use super::private::{Private, unfinished};
use crate::cache::{Age, CacheStore, Entry, Found, Key};

const HEAD: &[u8; 17] = b"sluice answers 1\n";

/// Writes the answers of `keys` to `path`, whole or not at all; says how many.
pub(crate) async fn save(
    path: &Path,
    (cache, now_ms): (&dyn CacheStore, u64),
    keys: &[Key],
) -> io::Result<usize> {
    let mut out = Private::create(path)?;
    out.write_all(HEAD)?;
    let mut count = 0;
    for key in keys {
        let Ok(Found::Entry(entry)) = cache.get(*key, now_ms).await else {
            continue;
        };
        if !entry.tags.is_empty() {
            continue;
        }
        let bytes = entry.encode().map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        out.write_all(key.bytes())?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&bytes)?;
        count += 1;
    }
    out.finish()?;
    Ok(count)
}

/// Puts what `path` holds into `cache`, but for what is over, and removes it; says how many answers
/// there were. What is damaged ends it.
pub(crate) async fn load(
    path: &Path,
    (cache, now_ms): (&dyn CacheStore, u64),
) -> io::Result<usize> {
    remove(&unfinished(path))?;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    std::fs::remove_file(path)?;
    let mut bytes = BufReader::new(file);
    let mut head = [0; HEAD.len()];
    bytes.read_exact(&mut head)?;
    if head != *HEAD {
        return Err(io::Error::other("it was made by another version"));
    }
    let mut count = 0;
    while let Some((key, entry)) = next(&mut bytes)? {
        if entry.age(now_ms) != Age::Over && entry.tags.is_empty() {
            cache.put(key, entry).await.map_err(io::Error::other)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Removes `path` and what was to become it, if they are there.
pub(crate) fn forget(path: &Path) -> io::Result<()> {
    remove(&unfinished(path))?;
    remove(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn next(bytes: &mut impl Read) -> io::Result<Option<(Key, Entry)>> {
    let mut key = [0; 32];
    if bytes.read(&mut key[..1])? == 0 {
        return Ok(None);
    }
    bytes.read_exact(&mut key[1..])?;
    let mut length = [0; 4];
    bytes.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > limit::SETTLE_BODY {
        return Err(io::Error::other(format!(
            "expected at most {} bytes of an answer, found {length}",
            limit::SETTLE_BODY
        )));
    }
    let mut packed = vec![0; length];
    bytes.read_exact(&mut packed)?;
    let entry = Entry::decode(&packed).map_err(io::Error::other)?;
    Ok(Some((Key::new(key), entry)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use bytes::Bytes;
    use sluice_wire::EntryHead;

    use super::*;
    use crate::cache::MemoryCache;

    fn key(n: u8) -> Key {
        Key::new([n; 32])
    }

    async fn put(cache: &MemoryCache, n: u8, keep_ms: u64, tags: &[&str]) {
        let entry = Entry {
            stored_ms: 1_000,
            built_ms: 1_000,
            fresh_ms: keep_ms,
            stale_ms: keep_ms,
            keep_ms,
            token: 7,
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            head: EntryHead::default(),
            body: Bytes::from(vec![n; 100]),
        };
        cache.put(key(n), entry).await.unwrap();
    }

    async fn kept(cache: &MemoryCache, now_ms: u64) -> Vec<u8> {
        let mut kept = Vec::new();
        for n in 0..10 {
            if let Ok(Found::Entry(entry)) = cache.get(key(n), now_ms).await {
                assert_eq!((&entry.body[..], entry.token), (&[n; 100][..], 7));
                kept.push(n);
            }
        }
        kept
    }

    #[tokio::test]
    async fn answers_come_back_once_but_for_what_is_over_tagged_or_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("semantic.answers");
        let cache = MemoryCache::new(1 << 20, 0);
        for n in 0..5 {
            put(&cache, n, 2_000 + u64::from(n), &[]).await;
        }
        put(&cache, 5, 9_000, &["acme/doc:1"]).await;
        cache.remove(key(4)).await.unwrap();
        let keys: Vec<Key> = (0..9).filter(|n| *n != 3).map(key).collect();
        assert_eq!(save(&path, (&cache, 1_500), &keys).await.unwrap(), 3);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let again = MemoryCache::new(1 << 20, 2_001);
        assert_eq!(load(&path, (&again, 2_001)).await.unwrap(), 1);
        assert_eq!(kept(&again, 2_001).await, [2]);
        assert!(!path.exists());
        assert_eq!(load(&path, (&again, 2_001)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_half_written_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("semantic.answers");
        let half = folder.path().join("semantic.answers.new");
        std::fs::write(&half, HEAD).unwrap();
        let cache = MemoryCache::new(1 << 20, 0);
        assert_eq!(load(&path, (&cache, 0)).await.unwrap(), 0);
        assert!(!half.exists());
        std::fs::write(&half, HEAD).unwrap();
        forget(&path).unwrap();
        assert!(!half.exists());
    }

    #[tokio::test]
    async fn what_is_damaged_or_cut_brings_back_nothing_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("semantic.answers");
        let cache = MemoryCache::new(1 << 20, 0);
        put(&cache, 1, 9_000, &[]).await;
        save(&path, (&cache, 1_500), &[key(1)]).await.unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let again = MemoryCache::new(1 << 20, 0);
            std::fs::write(&path, &good[..at]).unwrap();
            let cut = load(&path, (&again, 2_000)).await;
            assert!(cut.is_err() || at == HEAD.len(), "{at}");
            assert!(kept(&again, 2_000).await.is_empty());
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            std::fs::write(&path, &bad).unwrap();
            let flipped = load(&path, (&again, 2_000)).await;
            // A key that is another's is looked up by no question.
            let in_key = (HEAD.len()..HEAD.len() + 32).contains(&at);
            assert!(flipped.is_err() || in_key, "{at}");
            assert!(kept(&again, 2_000).await.is_empty());
            assert!(!path.exists());
        }
    }
}
