//! Where Redis is, as `serve.store` writes it.

/// The parts of a store's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// URLs of the nodes that are asked first; one, but for a cluster.
    pub nodes: Vec<String>,
    /// Whether they are a cluster's.
    pub cluster: bool,
    /// Whether they are reached by TLS.
    pub tls: bool,
}

/// What may stand there.
pub const FORMS: &str = "`redis://HOST:PORT`, `rediss://HOST:PORT` (TLS), \
                         `redis+cluster://HOST:PORT,HOST:PORT`, `rediss+cluster://…` or `unix:///PATH`";

impl Address {
    /// Reads `url`; `None` where it is none of [`FORMS`]. User, password and database of a cluster
    /// stand once: `redis+cluster://user:password@a:6379,b:6379`.
    #[must_use]
    pub fn parse(url: &str) -> Option<Address> {
        let (scheme, rest) = url.split_once("://")?;
        let one = |tls| Address {
            nodes: vec![url.to_owned()],
            cluster: false,
            tls,
        };
        let (tls, plain) = match scheme {
            "redis" | "unix" | "redis+unix" => return Some(one(false)),
            "rediss" => return Some(one(true)),
            "redis+cluster" => (false, "redis"),
            "rediss+cluster" => (true, "rediss"),
            _ => return None,
        };
        let (user, hosts) = match rest.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), rest),
        };
        let hosts = hosts.trim_end_matches('/');
        if hosts.split(',').any(str::is_empty) {
            return None;
        }
        Some(Address {
            nodes: hosts
                .split(',')
                .map(|host| format!("{plain}://{user}{host}"))
                .collect(),
            cluster: true,
            tls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clusters_nodes_share_what_stands_before_them() {
        let address = Address::parse("rediss+cluster://me:p%40ss@a:1,[::1]:2/").unwrap();
        assert_eq!(
            address.nodes,
            ["rediss://me:p%40ss@a:1", "rediss://me:p%40ss@[::1]:2"]
        );
        assert!(address.cluster && address.tls);
        let address = Address::parse("redis+cluster://a").unwrap();
        assert_eq!(
            (address.nodes, address.tls),
            (vec!["redis://a".to_owned()], false)
        );
    }

    #[test]
    fn a_url_that_is_none_of_redis_is_refused() {
        for url in [
            "",
            "memory",
            "http://a",
            "redis+cluster://",
            "redis+cluster://a,,b",
        ] {
            assert_eq!(Address::parse(url), None, "{url}");
        }
        for (url, tls) in [
            ("redis://a:1/2", false),
            ("rediss://a", true),
            ("unix:///a", false),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(
                (address.nodes, address.cluster, address.tls),
                (vec![url.to_owned()], false, tls)
            );
        }
    }
}
