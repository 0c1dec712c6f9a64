//! Prints the conversation in `conversation.json` as it is before and after trimming, by the
//! settings in `config.json`: what README.md and docs/trimming.md show.

mod shown;

fn main() {
    print!("{}", shown::shown().unwrap_or_default());
}
