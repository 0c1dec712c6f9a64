//! The prompt that README.md and docs/trimming.md show before and after trimming is the one that the
//! code makes.

#![cfg(not(target_arch = "wasm32"))]

use std::path::Path;

#[path = "../examples/trim/shown.rs"]
mod shown;

#[test]
fn the_pages_show_what_the_example_prints() {
    let shown = shown::shown().unwrap();
    assert!(shown.lines().any(|line| line.starts_with('-')), "{shown}");
    for page in ["README.md", "docs/trimming.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(page);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.contains(&format!("```\n{shown}```")),
            "{page} is to show what `cargo run -p sluice-core --example trim` prints:\n{shown}"
        );
        let settings = "history: {keep: relevant, tokens: 150, last: 1}";
        assert!(text.contains(settings), "{page} is to show {settings}");
    }
}
