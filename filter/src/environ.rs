//! Environment variables that Envoy's `host_env_keys` lets through: how `env:NAME` in the config is
//! read.
//!
//! std knows no environment on wasm32-unknown-unknown (`std::env::var` always says that there is
//! none), but Envoy offers WASI's two calls to every module.

#![expect(unsafe_code, reason = "WASI's calls are foreign functions that fill memory")]

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, bytes: *mut usize) -> u16;
    fn environ_get(starts: *mut *const u8, buffer: *mut u8) -> u16;
}

/// The value of `name`, where Envoy has it and lets it through.
pub(crate) fn var(name: &str) -> Option<String> {
    let block = block()?;
    block.split(|byte| *byte == 0).find_map(|entry| {
        let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        (key == name).then(|| value.to_string())
    })
}

/// All of them: `NAME=value`, each closed by a zero byte.
fn block() -> Option<Vec<u8>> {
    let (mut count, mut bytes) = (0, 0);
    // SAFETY: both pointers are to live `usize`s, which is what the call fills (32 bits here).
    if unsafe { environ_sizes_get(&mut count, &mut bytes) } != 0 {
        return None;
    }
    let mut starts = vec![std::ptr::null(); count];
    let mut buffer = vec![0; bytes];
    // SAFETY: the lengths are those that the host just asked for, and the environment of a VM does
    // not change.
    if unsafe { environ_get(starts.as_mut_ptr(), buffer.as_mut_ptr()) } != 0 {
        return None;
    }
    Some(buffer)
}
