//! A connection to one server or to a cluster, behind one face.

use redis::aio::{ConnectionLike, ConnectionManager};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};

/// What calls are made on. Clones share what is beneath.
#[derive(Clone)]
pub enum Conn {
    /// One server.
    One(ConnectionManager),
    /// A cluster. A pipeline's keys must lie in one slot.
    Cluster(ClusterConnection),
}

/// One server that holds keys: where it is, or the only one.
pub(super) type Master = Option<(String, u16)>;

impl Conn {
    /// Every server that holds keys.
    pub(super) async fn masters(&mut self) -> RedisResult<Vec<Master>> {
        match self {
            Conn::One(_) => Ok(vec![None]),
            Conn::Cluster(cluster) => {
                let text: String = redis::cmd("CLUSTER")
                    .arg("NODES")
                    .query_async(cluster)
                    .await?;
                Ok(text.lines().filter_map(master).map(Some).collect())
            }
        }
    }

    /// Calls `command` on one of [`Conn::masters`].
    pub(super) async fn ask(&mut self, master: &Master, command: Cmd) -> RedisResult<Value> {
        match (self, master) {
            (Conn::Cluster(cluster), Some((host, port))) => {
                let node = SingleNodeRoutingInfo::ByAddress {
                    host: host.clone(),
                    port: *port,
                };
                let answer = cluster
                    .route_command(command, RoutingInfo::SingleNode(node))
                    .await?;
                answer.extract_error()
            }
            (conn, _) => command.query_async(conn).await,
        }
    }
}

/// `ID HOST:PORT@BUS[,NAME] FLAGS …` of a master that is not failing.
fn master(line: &str) -> Option<(String, u16)> {
    let mut words = line.split(' ').skip(1);
    let (address, flags) = (words.next()?, words.next()?);
    let mut flags = flags.split(',');
    if !flags.clone().any(|it| it == "master") || flags.any(|it| it.starts_with("fail")) {
        return None;
    }
    let (host, port) = address.split('@').next()?.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

impl ConnectionLike for Conn {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Conn::One(it) => it.req_packed_command(cmd),
            Conn::Cluster(it) => it.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Conn::One(it) => it.req_packed_commands(pipeline, offset, count),
            Conn::Cluster(it) => it.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Conn::One(it) => it.get_db(),
            Conn::Cluster(it) => it.get_db(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_that_serve_are_read_from_what_a_node_tells() {
        let text = "\
07c3 127.0.0.1:30004@31004,host4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922
292f 127.0.0.1:30003@31003 master,fail - 0 1426238318243 3 connected
e7d1 ::1:30001@31001,host1 myself,master - 0 0 1 connected 0-5460";
        let masters: Vec<_> = text.lines().filter_map(master).collect();
        let expected = [("127.0.0.1", 30002), ("::1", 30001)];
        assert_eq!(
            masters,
            expected.map(|(host, port)| (host.to_owned(), port))
        );
    }
}
