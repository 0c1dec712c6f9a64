//! Tags: what a stored answer was built on. Dropping a tag drops the answers that carry it.

use sluice_wire::scoped_tag;

use crate::config::{Caching, Scope};

/// Most tags of one answer that come from one place, its route or its request.
pub const MOST: usize = 16;
/// Longest tag, in bytes.
pub const LONGEST: usize = 128;

/// Whether it can be a tag: visible ASCII, and nothing that parts two tags in a header.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    !text.is_empty() && text.len() <= LONGEST && text.bytes().all(visible)
}

/// The tags in a header, comma-separated. What is none is left out.
#[must_use]
pub fn listed(list: &str) -> Vec<String> {
    let tags = list.split(',').map(str::trim).filter(|tag| is_tag(tag));
    tags.take(MOST).map(str::to_owned).collect()
}

/// The tags under which an answer is stored, those of its route and those that came with the
/// request: its tenant's own where the answer is. An operator drops a tag of all tenants at once.
#[must_use]
pub fn stored(cache: &Caching, tenant: &str, of_request: &[String]) -> Vec<String> {
    let tenant = match cache.scope {
        Scope::Global => None,
        Scope::Tenant => Some(tenant),
    };
    let tags = cache.tags.iter().chain(of_request);
    tags.map(|tag| scoped_tag(tenant, tag)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_lists_tags_and_what_is_none_is_left_out() {
        assert_eq!(listed("a, doc:1,, b c ,d"), ["a", "doc:1", "d"]);
        assert_eq!(listed(&format!("{},x", "y".repeat(LONGEST + 1))), ["x"]);
        assert_eq!(listed(&"t,".repeat(100)).len(), MOST);
    }

    #[test]
    fn tags_are_their_tenants_where_the_answers_are() {
        let mut cache = Caching {
            tags: vec!["catalogue".to_owned()],
            ..Caching::default()
        };
        let own = ["doc:1".to_owned()];
        assert_eq!(
            stored(&cache, "acme", &own),
            ["acme/catalogue", "acme/doc:1"]
        );
        cache.scope = Scope::Global;
        assert_eq!(stored(&cache, "acme", &own), ["/catalogue", "/doc:1"]);
    }
}
