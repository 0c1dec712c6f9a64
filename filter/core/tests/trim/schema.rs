//! OpenAI's published schema, where it lies beside the project: as much of JSON Schema as its
//! requests' messages need. Of `oneOf` one or more must fit: some of its choices overlap.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use serde_json::Value;

/// Where it is looked for, from the project's root.
const PLACE: &str = "../shared/schemas/openai-openapi.yaml";

/// The schemas by name, read from their part of the file when they are first asked for.
pub(crate) struct Schemas {
    text: HashMap<String, String>,
    read: RefCell<HashMap<String, Rc<Value>>>,
}

impl Schemas {
    /// None, where the file is not there.
    pub(crate) fn load() -> Option<Schemas> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let file = std::fs::read_to_string(root.join(PLACE)).ok()?;
        let (_, schemas) = file.split_once("\n  schemas:\n")?;
        let mut text: HashMap<String, String> = HashMap::new();
        let mut name = "";
        for line in schemas.lines() {
            match line
                .strip_prefix("    ")
                .filter(|line| !line.starts_with(' '))
            {
                Some(key) if key.ends_with(':') => name = key.trim_end_matches(':'),
                _ if !line.is_empty() && !line.starts_with(' ') => break,
                _ => {
                    let one = text.entry(name.to_owned()).or_default();
                    one.push_str(line);
                    one.push('\n');
                }
            }
        }
        Some(Schemas {
            text,
            read: RefCell::default(),
        })
    }

    /// Whether a value is of the schema of that name.
    pub(crate) fn fits(&self, name: &str, value: &Value) -> bool {
        let known = self.read.borrow().get(name).cloned();
        let schema = known.unwrap_or_else(|| {
            let text = &self.text[name];
            let schema: Value = serde_saphyr::from_str(text).unwrap();
            let schema = Rc::new(schema);
            let mut read = self.read.borrow_mut();
            read.insert(name.to_owned(), Rc::clone(&schema));
            schema
        });
        self.is_of(&schema, value)
    }

    fn is_of(&self, schema: &Value, value: &Value) -> bool {
        if schema["nullable"] == true && value.is_null() {
            return true;
        }
        let choices = |key: &str| schema[key].as_array().filter(|list| !list.is_empty());
        let named = schema["$ref"].as_str().is_none_or(|path| {
            let name = path.rsplit('/').next().unwrap();
            self.fits(name, value)
        });
        let any = ["anyOf", "oneOf"].into_iter().all(|key| {
            choices(key).is_none_or(|list| list.iter().any(|one| self.is_of(one, value)))
        });
        let all = choices("allOf").is_none_or(|list| list.iter().all(|one| self.is_of(one, value)));
        let one_of = choices("enum").is_none_or(|list| list.contains(value));
        named && any && all && one_of && self.plain(schema, value)
    }

    /// What a schema says itself, without its choices.
    fn plain(&self, schema: &Value, value: &Value) -> bool {
        let size = |key: &str| schema[key].as_u64();
        let within = |found: usize, least: &str, most: &str| {
            size(least).is_none_or(|least| found as u64 >= least)
                && size(most).is_none_or(|most| found as u64 <= most)
        };
        let kind = match schema["type"].as_str() {
            None => true,
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            Some("null") => value.is_null(),
            Some(other) => panic!("a type that no schema had: {other}"),
        };
        kind && match value {
            Value::String(text) => within(text.chars().count(), "minLength", "maxLength"),
            Value::Array(list) => {
                within(list.len(), "minItems", "maxItems")
                    && (schema["items"].is_null()
                        || list.iter().all(|one| self.is_of(&schema["items"], one)))
            }
            Value::Object(fields) => {
                let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
                required
                    .iter()
                    .all(|key| fields.contains_key(key.as_str().unwrap()))
                    && fields.iter().all(|(key, value)| {
                        match (&schema["properties"][key], &schema["additionalProperties"]) {
                            (Value::Null, Value::Bool(false)) => false,
                            (Value::Null, more @ Value::Object(_)) => self.is_of(more, value),
                            (Value::Null, _) => true,
                            (known, _) => self.is_of(known, value),
                        }
                    })
            }
            _ => true,
        }
    }
}
