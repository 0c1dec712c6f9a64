//! `templates`, and which of them a route has.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_wire::Over;

use super::Lower;
use crate::config::values::Count;
use crate::config::{Fault, raw};
use crate::policy::trim::template::{ClientSystem, Frame, SlotLimits, Template, fixed};

/// The word for no template, by which a route does without the overall one.
const NONE: &str = "none";

impl Lower<'_> {
    pub(super) fn templates(&mut self, raw: &[(usize, raw::Template)]) {
        let mut templates = BTreeMap::new();
        for (at, raw) in raw {
            let path = format!("templates[{at}]");
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if raw.name.is_empty()
                || raw.name.len() > 64
                || raw.name == NONE
                || !raw.name.chars().all(fits)
            {
                let message = format!(
                    "found `{}`, expected 1 to 64 letters, digits, `-`, `_`, `.`, and not `none`",
                    raw.name
                );
                self.fault(&format!("{path}.name"), message);
            }
            let template = self.template(&path, raw);
            if templates
                .insert(raw.name.clone(), Arc::new(template))
                .is_some()
            {
                let message = format!("found `{}` twice, expected names that differ", raw.name);
                self.fault(&format!("{path}.name"), message);
            }
        }
        self.templates = templates;
    }

    fn template(&mut self, path: &str, raw: &raw::Template) -> Template {
        if let Some(Err(message)) = raw.system.as_deref().map(fixed) {
            self.fault(&format!("{path}.system"), message);
        }
        if raw.client_system == ClientSystem::Drop && raw.system.is_none() {
            let message = "found `drop` without `system`, expected a text that takes its place";
            self.fault(&format!("{path}.client_system"), message);
        }
        let user = Frame::parse(&raw.user).unwrap_or_else(|message| {
            self.fault(&format!("{path}.user"), message);
            Frame::default()
        });
        let mut limit = |name: &str, raw: Option<Count>| {
            let Count(found) = raw?;
            if found == 0 {
                self.fault(
                    &format!("{path}.tokens.{name}"),
                    "found 0, expected 1 or more",
                );
            }
            Some(found)
        };
        let limits = SlotLimits {
            context: limit("context", raw.tokens.context),
            memory: limit("memory", raw.tokens.memory),
            question: limit("question", raw.tokens.question),
        };
        if raw.over.is_some() && limits.question.is_none() {
            let message = "found without `tokens.question`, expected the limit that it is about";
            self.fault(&format!("{path}.over"), message);
        }
        Template {
            name: raw.name.clone(),
            system: raw.system.clone(),
            user,
            limits,
            client_system: raw.client_system,
            over: raw.over.unwrap_or(Over::Reject),
        }
    }

    /// The template that a route names.
    pub(super) fn template_of(&mut self, path: &str, name: Option<&str>) -> Option<Arc<Template>> {
        let name = name.filter(|name| *name != NONE)?;
        let found = self.templates.get(name).cloned();
        // One that could not be read has a fault of its own.
        let unread = |fault: &Fault| fault.path.starts_with("templates");
        if found.is_none() && !self.faults.iter().any(unread) {
            let known: Vec<&str> = self.templates.keys().map(String::as_str).collect();
            let message = format!(
                "found `{name}`, expected one of `templates`: {}",
                known.join(", ")
            );
            self.fault(path, message);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};
    use crate::policy::trim::template::ClientSystem;

    const ONE: &str = r#"{"name":"support","system":"Be brief.","user":"{{context}}\n\n{{question}}","tokens":{"context":"1_500","question":500},"client_system":"drop","over":"small_tier"}"#;

    #[test]
    fn a_route_has_the_template_that_it_names_or_none() {
        let plan = parse(&format!(
            r#"{{"templates":[{ONE},{{"name":"bare","user":"{{{{question}}}}"}}],"trim":{{"template":"support"}},
                "routes":[{{"name":"a","match":{{"path":"/a"}},"trim":{{"template":"bare"}}}},
                          {{"name":"b","match":{{"path":"/b"}},"trim":{{"template":"none"}}}}]}}"#
        ))
        .unwrap();
        let support = plan.default.trim.template.as_ref().unwrap();
        assert_eq!(
            (support.limits.context, support.limits.question),
            (Some(1500), Some(500))
        );
        assert_eq!(support.client_system, ClientSystem::Drop);
        assert_eq!(
            plan.routes[0].1.trim.template.as_ref().unwrap().name,
            "bare"
        );
        assert_eq!(plan.routes[1].1.trim.template, None);
        assert_eq!(plan.templates.len(), 2);
        assert_ne!(plan.default.digest, plan.routes[1].1.digest);
        let changed = parse(&format!(
            r#"{{"templates":[{}],"trim":{{"template":"support"}}}}"#,
            ONE.replace("brief", "long")
        ));
        assert_ne!(
            changed.unwrap().default.digest,
            plan.default.digest,
            "what a template says is in the key"
        );
    }

    #[test]
    fn a_template_that_makes_no_sense_is_a_fault_of_its_field() {
        for (template, path, told) in [
            (
                r#"{"user":"{{question}}"}"#,
                "templates[0]",
                "missing field `name`",
            ),
            (
                r#"{"name":"a b","user":"{{question}}"}"#,
                "templates[0].name",
                "found `a b`",
            ),
            (
                r#"{"name":"none","user":"{{question}}"}"#,
                "templates[0].name",
                "not `none`",
            ),
            (
                r#"{"name":"a","user":"{{history}} {{question}}"}"#,
                "templates[0].user",
                "found `{{history}}`, expected context, memory or question",
            ),
            (
                r#"{"name":"a","user":"{{context}}"}"#,
                "templates[0].user",
                "0 times, expected it once",
            ),
            (
                r#"{"name":"a","user":"{{question}}","system":"{{context}}"}"#,
                "templates[0].system",
                "found a slot",
            ),
            (
                r#"{"name":"a","user":"{{question}}","client_system":"drop"}"#,
                "templates[0].client_system",
                "without `system`",
            ),
            (
                r#"{"name":"a","user":"{{question}}","over":"reject"}"#,
                "templates[0].over",
                "without `tokens.question`",
            ),
            (
                r#"{"name":"a","user":"{{question}}","tokens":{"context":0}}"#,
                "templates[0].tokens.context",
                "found 0",
            ),
            (
                r#"{"name":"a","user":"{{question}}","tokens":{"system":1}}"#,
                "templates[0].tokens.system",
                "unknown field",
            ),
        ] {
            let found = faults(&format!(r#"{{"templates":[{template}]}}"#));
            let [(at, message)] = found.as_slice() else {
                panic!("{template}: {found:?}")
            };
            assert_eq!(at, path, "{template}");
            assert!(message.contains(told), "{message}");
        }
        let twice = faults(&format!(r#"{{"templates":[{ONE},{ONE}]}}"#));
        let name = "found `support` twice, expected names that differ";
        assert_eq!(twice, [("templates[1].name".to_owned(), name.to_owned())]);
        let unknown = faults(&format!(
            r#"{{"templates":[{ONE}],"trim":{{"template":"other"}}}}"#
        ));
        let told = "found `other`, expected one of `templates`: support";
        assert_eq!(unknown, [("trim.template".to_owned(), told.to_owned())]);
    }
}
