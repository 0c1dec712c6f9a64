//! Envoy's config for tests, the demo and the benches: `envoy/envoy.yaml` in small.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{ConfigAs, Options, Upstream};
use crate::tools;

/// Cluster of requests that no tier claims.
const DEFAULT: &str = "provider";
/// Cluster of the sidecars, as the tests' configs name it.
const SIDECAR: &str = "sluice_sidecar";

/// The bootstrap config; the listener comes from the file at `listener`, which may be replaced.
///
/// # Errors
/// When `envoy/envoy.yaml`, whose tag extraction is used, is no YAML.
pub(super) fn bootstrap(options: &Options, listener: &Path, own: &Path) -> anyhow::Result<Value> {
    let mut clusters = vec![
        cluster(DEFAULT, &options.upstream, options.buffer),
        sidecar_cluster(options),
        own_cluster(own, options.buffer),
    ];
    for (tier, upstream) in &options.tiers {
        clusters.push(cluster(&cluster_of(tier), upstream, options.buffer));
    }
    Ok(json!({
        "node": {"id": options.name, "cluster": "sluice-tests"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "stats_config": stats_config()?,
        "dynamic_resources": {"lds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": listener},
        }},
        "static_resources": {"clusters": clusters},
    }))
}

/// Cluster of this Envoy's own listener, as the tests' configs name it.
const OWN: &str = "sluice_self";

/// The listener's port is known once it listens; then [`own_endpoint`] is put at `path`.
fn own_cluster(path: &Path, buffer: u32) -> Value {
    json!({
        "name": OWN,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {"eds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": path},
        }},
        "per_connection_buffer_limit_bytes": buffer,
    })
}

/// Where the own listener is, as a discovery response.
pub(super) fn own_endpoint(at: Option<SocketAddr>) -> Value {
    let at: Vec<Value> = at
        .iter()
        .map(|at| endpoint(&at.ip().to_string(), at.port()))
        .collect();
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": OWN,
        "endpoints": [{"lb_endpoints": at}],
    }]})
}

/// The listener, as a discovery response.
pub(super) fn listener(options: &Options, wasm: Option<&Path>, access_log: &Path) -> Value {
    let mut routes = vec![relay_route()];
    routes.extend(options.tiers.keys().map(|tier| {
        let header = json!({"name": "x-sluice-tier", "string_match": {"exact": tier}});
        route(
            &json!({"prefix": "/", "headers": [header]}),
            &cluster_of(tier),
            &options.tiers[tier],
        )
    }));
    routes.push(route(&json!({"prefix": "/"}), DEFAULT, &options.upstream));
    let mut filters = Vec::new();
    if let (Some(config), Some(wasm)) = (&options.filter, wasm) {
        filters.push(filter(options, config, wasm));
    }
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let access_logs: Vec<Value> = if options.logged {
        vec![access_log_to(access_log)]
    } else {
        Vec::new()
    };
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "codec_type": "AUTO",
        "http_protocol_options": http1(),
        "stream_idle_timeout": format!("{}s", options.idle_secs),
        "access_log": access_logs,
        "route_config": {"name": "routes", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": routes},
        ]},
        "http_filters": filters,
    });
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "ingress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "per_connection_buffer_limit_bytes": options.buffer,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    }]})
}

fn cluster_of(tier: &str) -> String {
    format!("provider_{tier}")
}

/// What the filter has the sidecar relay.
fn relay_route() -> Value {
    let header = json!({"name": "x-sluice-relay", "string_match": {"exact": "1"}});
    json!({
        "match": {"path": "/v1/relay", "headers": [header]},
        "route": {"cluster": SIDECAR, "timeout": "0s"},
    })
}

fn route(matches: &Value, cluster: &str, upstream: &Upstream) -> Value {
    // An answer takes as long as it takes; what stands still is ended by the listener's idle timeout.
    let mut action = json!({"cluster": cluster, "timeout": "0s"});
    if let Upstream::Tls { host, .. } | Upstream::Named { host, .. } = upstream {
        action["host_rewrite_literal"] = json!(host);
    }
    json!({"match": matches, "route": action})
}

fn filter(options: &Options, config: &Value, wasm: &Path) -> Value {
    let configuration = match options.config_as {
        ConfigAs::Struct => json!({
            "@type": "type.googleapis.com/google.protobuf.Struct",
            "value": config,
        }),
        ConfigAs::Text => json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": config.to_string(),
        }),
    };
    json!({
        "name": "envoy.filters.http.wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "sluice",
                "root_id": "sluice",
                "configuration": configuration,
                "failure_policy": "FAIL_RELOAD",
                "reload_config": {"backoff": {"base_interval": "1s"}},
                "allow_on_headers_stop_iteration": true,
                "vm_config": {
                    "vm_id": "sluice",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": wasm}},
                    "environment_variables": {"key_values": options.environment},
                },
            },
        },
    })
}

/// HTTP/1.1 with trailers, which Envoy drops unless told otherwise: HTTP/2 always has them.
fn http1() -> Value {
    json!({"enable_trailers": true})
}

fn access_log_to(path: &Path) -> Value {
    let format = json!({
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "path": "%REQ(:PATH)%",
        "method": "%REQ(:METHOD)%",
        "sluice": "%FILTER_STATE(wasm.sluice:PLAIN)%",
    });
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": format},
        },
    })
}

fn endpoint(host: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": host, "port_value": port}});
    json!({"endpoint": {"address": address}})
}

fn cluster_with(name: &str, kind: &str, endpoints: Vec<Value>) -> Value {
    json!({
        "name": name,
        "type": kind,
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        // The defaults (1,024) are a limit of Envoy's that would be measured in place of ours.
        "circuit_breakers": {"thresholds": [{
            "max_connections": 100_000,
            "max_pending_requests": 100_000,
            "max_requests": 100_000,
        }]},
    })
}

fn cluster(name: &str, upstream: &Upstream, buffer: u32) -> Value {
    let mut cluster = match upstream {
        Upstream::Plain(address) => {
            let endpoint = endpoint(&address.ip().to_string(), address.port());
            cluster_with(name, "STATIC", vec![endpoint])
        }
        Upstream::Named { host, port } | Upstream::Tls { host, port } => {
            cluster_with(name, "STRICT_DNS", vec![endpoint(host, *port)])
        }
    };
    if let Upstream::Tls { host, .. } = upstream {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "common_tls_context": {"validation_context": {
                    "trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"},
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": host}},
                    ],
                }},
            },
        });
    }
    cluster["per_connection_buffer_limit_bytes"] = json!(buffer);
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": http1()},
        },
    });
    cluster
}

fn sidecar_cluster(options: &Options) -> Value {
    let endpoints = options.sidecars.iter();
    let endpoints = endpoints
        .map(|at| endpoint(&at.ip().to_string(), at.port()))
        .collect();
    let mut cluster = cluster_with(SIDECAR, "STATIC", endpoints);
    cluster["per_connection_buffer_limit_bytes"] = json!(options.buffer);
    if options.sidecars.len() > 1 {
        // One that is gone is not asked again and again.
        cluster["outlier_detection"] = json!({
            "split_external_local_origin_errors": true,
            "consecutive_local_origin_failure": 2,
            "consecutive_5xx": 0,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 50,
        });
    }
    cluster
}

/// The tag extraction of the reference config, where there is one.
fn stats_config() -> anyhow::Result<Value> {
    let path = tools::root().join("envoy/envoy.yaml");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(json!({}));
    };
    let reference: Value =
        serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(reference
        .get("stats_config")
        .cloned()
        .unwrap_or_else(|| json!({})))
}
