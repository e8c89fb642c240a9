//! `[[rule]]`: matchers and one action.

use std::collections::HashMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::super::diagnostic::Severity;
use super::super::model::{Action, Moment, Policy, Rule};
use super::list::Lists;
use super::values;
use super::walk::{Field, Walker, type_name};

const KEYS: &[&str] = &["name", "action", "to", "ports", "apps", "except-apps", "until"];

impl Walker<'_> {
    /// All `[[rule]]` of a file.
    pub(super) fn rules(
        &mut self,
        field: &Field<'_>,
        policy: Option<&Policy>,
        lists: &Lists,
    ) -> Vec<Rule> {
        let array = match field.value.get_ref() {
            DeValue::Array(array) => array,
            DeValue::Table(_) => {
                self.error(
                    field.value.span(),
                    "`rule` is a table, and a policy has an array of them",
                    "write `[[rule]]`, with two brackets, for each rule",
                );
                return Vec::new();
            }
            other => {
                let hint = "write `[[rule]]` for each rule".to_owned();
                self.wrong_type(field.value.span(), "rule", "an array of tables", other, hint);
                return Vec::new();
            }
        };
        if array.is_empty() {
            let hint = "write a `[[rule]]`, or leave `rule` out";
            self.error(field.value.span(), "`rule` is empty", hint);
        }
        let mut names: HashMap<String, Range<usize>> = HashMap::new();
        let mut rules = Vec::with_capacity(array.len());
        for element in array.iter() {
            let span = element.span();
            self.diagnostics.saw_rule();
            let DeValue::Table(table) = element.get_ref() else {
                let found = type_name(element.get_ref());
                let hint = "write `[[rule]]` for each rule";
                self.error(span, format!("a rule is a table, not {found}"), hint);
                continue;
            };
            rules.extend(self.rule(table, span, policy, lists, &mut names));
        }
        rules
    }

    fn rule<'t>(
        &mut self,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        policy: Option<&Policy>,
        lists: &Lists,
        names: &mut HashMap<String, Range<usize>>,
    ) -> Option<Rule> {
        let fields = self.fields(table, KEYS, "a rule", |key| match key {
            "jurisdictions" | "organisations" | "asns" | "networks" | "domains" | "lists" => {
                Some(format!("destinations stand under `to`: `to = {{ {key} = […] }}`"))
            }
            "except" => Some("it belongs in `to`: `to = { …, except = { … } }`".to_owned()),
            "priority" | "mode" | "default" => {
                Some(format!("`{key}` is the policy's: it belongs below `[policy]`"))
            }
            "description" | "comment" => Some("write it as a comment: `# …`".to_owned()),
            _ => None,
        });
        let name = match fields.field("name") {
            None => {
                let hint = "add `name = \"…\"`: verdicts are recorded under it";
                self.missing(span.clone(), "the rule has no `name`", hint);
                None
            }
            Some(field) => self.string(field, "my-rule").and_then(|text| {
                let name = self.checked(field.value.span(), values::name(text))?;
                self.unique(&name, field.value.span(), names);
                let place = self.place(field.value.span());
                let policy = policy.map_or("", |policy| &policy.name);
                self.diagnostics.place_rule(policy, &name, place);
                Some(name)
            }),
        };
        let action = match fields.field("action") {
            None => {
                let hint = "add `action = \"drop\"`, or `\"allow\"` or `\"log\"`";
                self.missing(span.clone(), "the rule has no `action`", hint);
                None
            }
            Some(field) => self
                .string(field, "drop")
                .and_then(|text| self.checked(field.value.span(), values::action(text))),
        };
        let to = fields.field("to").map(|field| self.destinations(field, lists));
        let ports = fields.field("ports").map(|field| self.ports(field));
        let apps = self.apps(&fields, action);
        let until = fields.field("until").map(|field| self.until(field, action));
        if let Some(policy) = policy {
            self.empty_apps(&fields, &policy.apps, &apps);
        }
        // What is wrong with selectors was said of them.
        let particular = fields.field("except-apps").is_some()
            || (fields.field("apps").is_some() && !apps.names_every());
        if to.is_none() && ports.is_none() && !particular {
            self.missing(
                span,
                "the rule is empty: it has neither `to` nor `ports`",
                "for every destination, write `to = { networks = [\"0.0.0.0/0\", \"::/0\"] }`",
            );
        }
        Some(Rule {
            name: name?,
            action: action?,
            to: to.flatten(),
            ports: ports.unwrap_or_default(),
            apps,
            // What is wrong with it is an error: no rule is for ever by mistake.
            until: until.flatten(),
        })
    }

    fn until(&mut self, field: &Field<'_>, action: Option<Action>) -> Option<Moment> {
        if action == Some(Action::Drop) {
            // Where nobody keeps time it is left out, which must never let more pass.
            let hint = "only `allow` and `log` are for a time; leave `until` out";
            self.error(field.span.clone(), "a rule that drops is not for a time", hint);
        }
        let text = self.string(field, "BOOT+SECONDSs")?;
        self.checked(field.value.span(), values::moment(text))
    }

    fn unique(
        &mut self,
        name: &str,
        span: Range<usize>,
        names: &mut HashMap<String, Range<usize>>,
    ) {
        if let Some(first) = names.get(name) {
            let related = Some((self.place(first.clone()), "the first".to_owned()));
            let message = format!("a second rule has the name `{name}`");
            let hint = "verdicts are recorded under the name; rename one of the two".to_owned();
            self.report(Severity::Error, span, message, related, hint);
            return;
        }
        names.insert(name.to_owned(), span);
    }
}
