//! The configs that users start from: Envoy takes them, and Kubernetes would take the resources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use sluice_core::exchange::Label;
use sluice_wire::header;

#[test]
fn envoy_takes_the_reference_config_with_the_filter_in_it() -> Result<()> {
    envoy_takes("yaml", &with_module("envoy/envoy.yaml")?)
}

#[test]
fn envoy_takes_the_config_of_the_compose_example() -> Result<()> {
    envoy_takes("yaml", &with_module("examples/docker/envoy.yaml")?)
}

#[test]
fn envoy_takes_what_istio_would_make_of_the_envoy_filter() -> Result<()> {
    let text = fs::read_to_string(root().join("envoy/istio.yaml"))?;
    let resources = yaml(&text)?;
    let filter = resources
        .iter()
        .find(|resource| resource["kind"] == "EnvoyFilter");
    let patches = filter.context("no EnvoyFilter")?["spec"]["configPatches"].clone();
    let of = |kind: &str, operation: &str| -> Result<Value> {
        let all = patches.as_array().context("configPatches is a list")?;
        let found = all
            .iter()
            .find(|patch| patch["applyTo"] == kind && patch["patch"]["operation"] == operation);
        Ok(found.with_context(|| format!("no {operation} of a {kind}"))?["patch"]["value"].clone())
    };
    let manager = merged(
        of("NETWORK_FILTER", "MERGE")?["typed_config"].clone(),
        json!({
            "stat_prefix": "gateway",
            "route_config": merged(
                of("ROUTE_CONFIGURATION", "MERGE")?,
                json!({"virtual_hosts": []}),
            ),
            "http_filters": [of("EXTENSION_CONFIG", "ADD")?, {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        }),
    );
    let listener = merged(
        of("LISTENER", "MERGE")?,
        json!({
            "name": "gateway",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager,
            }]}],
        }),
    );
    let mut bootstrap = merged(
        of("BOOTSTRAP", "MERGE")?,
        json!({"static_resources": {"listeners": [listener], "clusters": [
            merged(of("CLUSTER", "ADD")?, of("CLUSTER", "MERGE")?),
        ]}}),
    );
    let loads = replace(
        &mut bootstrap,
        "code",
        &json!({"local": {"filename": module()?}}),
    );
    ensure!(loads == 1, "the config loads one module, found {loads}");
    envoy_takes("json", &bootstrap.to_string())?;

    // The entry that the WasmPlugin left in the chain is replaced by one that asks for the same name.
    let replaced = of("HTTP_FILTER", "REPLACE")?;
    assert_eq!(replaced["name"], of("EXTENSION_CONFIG", "ADD")?["name"]);
    Ok(())
}

#[test]
fn the_sidecar_takes_the_configs_that_users_start_from() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let screen = readme
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let folder = tempfile::tempdir()?;
    let shown = folder.path().join("readme.yaml");
    fs::write(&shown, screen.context("no YAML in README.md")?)?;
    let sluice = root().join("target/dist/sluice");
    ensure!(
        sluice.is_file(),
        "{} is missing; cargo xtask dist",
        sluice.display()
    );
    let examples = [
        "docker/sluice.yaml",
        "retrieval.yaml",
        "context.yaml",
        "trimming.yaml",
    ]
    .map(|it| root().join("examples").join(it));
    for config in std::iter::once(shown).chain(examples) {
        let output = Command::new(&sluice)
            .arg("check")
            .arg(&config)
            .env("SLUICE_SECRET", "a-secret")
            .stdin(Stdio::null())
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.success(), "{}:\n{said}", config.display());
    }
    Ok(())
}

#[test]
fn no_listener_lets_a_header_of_ours_out_to_a_provider() -> Result<()> {
    let wanted: BTreeSet<&str> = [
        header::TASK,
        header::TIER,
        header::MODEL,
        header::CACHE,
        header::TAGS,
        header::TEMPLATE,
        header::LEASE,
        header::ATTEMPT,
        header::RELAY,
        "x-sluice-deadline",
        "x-sluice-callback",
    ]
    .into();
    for file in [
        "envoy/envoy.yaml",
        "envoy/istio.yaml",
        "examples/docker/envoy.yaml",
    ] {
        let mut found = Vec::new();
        for document in yaml(&fs::read_to_string(root().join(file))?)? {
            collect(&document, "request_headers_to_remove", &mut found);
        }
        let [Value::Array(found)] = &found[..] else {
            bail!("{file} has one list of headers to remove");
        };
        let found: BTreeSet<&str> = found.iter().filter_map(Value::as_str).collect();
        assert_eq!(found, wanted, "{file}");
    }
    Ok(())
}

#[test]
fn every_metric_label_of_the_reference_config_is_in_the_istio_one() -> Result<()> {
    let tags = |file: &str| -> Result<Vec<Value>> {
        let text = fs::read_to_string(root().join(file))?;
        let mut found = Vec::new();
        for document in yaml(&text)? {
            collect(&document, "stats_tags", &mut found);
        }
        ensure!(found.len() == 1, "{file} has one stats_tags");
        Ok(found)
    };
    assert_eq!(tags("envoy/envoy.yaml")?, tags("envoy/istio.yaml")?);
    Ok(())
}

#[test]
fn every_label_that_the_filter_writes_is_taken_out_of_its_metrics_names() -> Result<()> {
    let config = fs::read_to_string(root().join("envoy/envoy.yaml"))?;
    for label in Label::ALL.map(Label::name) {
        let extractor = format!("{{tag_name: {label}, regex: '(;{label}=([^;]*);)'}}");
        assert!(config.contains(&extractor), "envoy.yaml lacks {extractor}");
    }
    Ok(())
}

#[test]
fn the_istio_resources_fit_their_schemas() -> Result<()> {
    let schemas = root().join("../shared/schemas/istio-crds.yaml");
    let Ok(schemas) = fs::read_to_string(&schemas) else {
        eprintln!("SKIPPED: no Istio schemas beside the repository");
        return Ok(());
    };
    let schemas = yaml(&schemas)?;
    for resource in yaml(&fs::read_to_string(root().join("envoy/istio.yaml"))?)? {
        let kind = resource["kind"]
            .as_str()
            .context("a resource without a kind")?;
        let version = resource["apiVersion"]
            .as_str()
            .and_then(|name| name.split('/').nth(1));
        let version = version.context("a resource without a version")?;
        let schema = schemas
            .iter()
            .find(|schema| schema["spec"]["names"]["kind"] == kind)
            .and_then(|schema| schema["spec"]["versions"].as_array())
            .and_then(|versions| versions.iter().find(|v| v["name"] == version))
            .with_context(|| format!("no schema of {kind} {version}"))?;
        let schema = &schema["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut faults = Vec::new();
        check(&resource["spec"], schema, "spec", &mut faults);
        assert_eq!(faults, Vec::<String>::new(), "{kind}");
        // And that the check can fail: a misspelt field is one.
        let mut wrong = resource["spec"].clone();
        wrong["workloadSelektor"] = json!({});
        check(&wrong, schema, "spec", &mut faults);
        assert_eq!(faults, ["spec.workloadSelektor: unknown field"], "{kind}");
    }
    Ok(())
}

/// The part of OpenAPI that Kubernetes' structural schemas use and that typing errors run into.
fn check(value: &Value, schema: &Value, at: &str, faults: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !fits {
        faults.push(format!("{at}: {} expected, found {value}", schema["type"]));
        return;
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|allowed| !allowed.contains(value))
    {
        faults.push(format!(
            "{at}: one of {} expected, found {value}",
            schema["enum"]
        ));
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if value.get(name).is_none() {
            faults.push(format!("{at}.{name}: missing"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (
            schema["properties"].get(name),
            &schema["additionalProperties"],
        ) {
            (Some(schema), _) => check(value, schema, &at, faults),
            (None, Value::Object(_)) => check(value, &schema["additionalProperties"], &at, faults),
            (None, _) => faults.push(format!("{at}: unknown field")),
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        check(value, &schema["items"], &format!("{at}[{index}]"), faults);
    }
}

/// The text as it stands, for Envoy's own YAML reader, with the path of the module that was built.
fn with_module(file: &str) -> Result<String> {
    let text = fs::read_to_string(root().join(file))?;
    let shipped = "/etc/envoy/sluice-filter.wasm";
    ensure!(
        text.matches(shipped).count() == 1,
        "{file} loads {shipped} once"
    );
    Ok(text.replace(shipped, &module()?.to_string_lossy()))
}

fn module() -> Result<PathBuf> {
    let module = root().join("target/dist/sluice-filter.wasm");
    ensure!(
        module.is_file(),
        "{} is missing; cargo xtask wasm",
        module.display()
    );
    Ok(module)
}

/// Starts Envoy as far as `--mode validate` does: the module is loaded and its config read.
fn envoy_takes(kind: &str, config: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("envoy").with_extension(kind);
    fs::write(&file, config)?;
    let output = Command::new(envoy()?)
        .args([
            "--mode",
            "validate",
            "--log-level",
            "warning",
            "--config-path",
        ])
        .arg(&file)
        .env("SLUICE_SECRET", "a-secret")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        bail!("Envoy refuses it:\n{said}");
    }
    // Envoy only warns of what it will refuse one day.
    ensure!(!said.contains("eprecated"), "{said}");
    Ok(())
}

/// Sets every field of that name; says how many there were.
fn replace(value: &mut Value, name: &str, new: &Value) -> usize {
    match value {
        Value::Object(map) => map
            .iter_mut()
            .map(|(key, value)| {
                if key == name {
                    *value = new.clone();
                    1
                } else {
                    replace(value, name, new)
                }
            })
            .sum(),
        Value::Array(list) => list.iter_mut().map(|value| replace(value, name, new)).sum(),
        _ => 0,
    }
}

/// The values of every field of that name.
fn collect(value: &Value, name: &str, found: &mut Vec<Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == name {
                    found.push(value.clone());
                }
                collect(value, name, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, name, found)),
        _ => {}
    }
}

/// `base` with the fields of `over`.
fn merged(mut base: Value, over: Value) -> Value {
    if let (Value::Object(base), Value::Object(over)) = (&mut base, over) {
        base.extend(over);
    }
    base
}

fn yaml(text: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple(text)?)
}

fn envoy() -> Result<PathBuf> {
    let told = std::env::var_os("SLUICE_ENVOY").map(PathBuf::from);
    let path = told.unwrap_or_else(|| root().join("target/tools/envoy"));
    ensure!(
        path.is_file(),
        "{} is missing; cargo xtask setup envoy",
        path.display()
    );
    Ok(path)
}

fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
