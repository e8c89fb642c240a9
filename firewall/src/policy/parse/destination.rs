//! `to` and `ports`: which flows a rule matches.

use super::super::model::{Destinations, Ports};
use super::list::Lists;
use super::values;
use super::walk::{Elements, Field, Walker};

const KEYS: &[&str] =
    &["jurisdictions", "organisations", "asns", "networks", "domains", "lists", "except"];

impl Walker<'_> {
    /// `to`, or its `except`.
    pub(super) fn destinations(
        &mut self,
        field: &Field<'_>,
        lists: &Lists,
    ) -> Option<Destinations> {
        let example = format!("`{} = {{ jurisdictions = [\"CN\"] }}`", field.key);
        let table = self.table(field, &example)?;
        let of = format!("`{}`", field.key);
        let nested = field.key == "except";
        let known = if nested { &KEYS[..KEYS.len() - 1] } else { KEYS };
        let fields = self.fields(table, known, &of, |key| match key {
            "except" => {
                Some("an exception has no exceptions of its own; write another rule".into())
            }
            "ports" | "apps" | "port" => Some(format!("`{key}` belongs in the rule, beside `to`")),
            _ => None,
        });
        if table.is_empty() {
            let everything = "every destination is `networks = [\"0.0.0.0/0\", \"::/0\"]`";
            let hint = if nested { "leave `except` out" } else { everything };
            self.error(field.value.span(), format!("{of} is empty"), hint);
            return None;
        }
        let mut to = Destinations::default();
        if let Some(field) = fields.field("jurisdictions") {
            to.jurisdictions = self.elements(field, &strings("CN"), values::country);
        }
        if let Some(field) = fields.field("organisations") {
            let known = self.organisations;
            to.organisations =
                self.elements(field, &strings("baidu"), |text| values::organisation(text, known));
        }
        if let Some(field) = fields.field("asns") {
            let form = Elements { example: "AS37963", number: Some(|n| format!("AS{n}")) };
            to.asns = self.elements(field, &form, values::asn);
        }
        if let Some(field) = fields.field("networks") {
            to.networks = self.elements(field, &strings("192.0.2.0/24"), values::network);
        }
        if let Some(field) = fields.field("domains") {
            to.domains = self.elements(field, &strings("baidu.com"), values::domain);
        }
        if let Some(field) = fields.field("lists") {
            let names = self.elements(field, &strings("my-list"), |text| lists.find(text));
            to.lists = names.iter().filter_map(|name| lists.list(name)).collect();
        }
        if let Some(except) = fields.field("except") {
            if table.len() == 1 {
                self.missing(
                    except.span.clone(),
                    "there is nothing to except from: `to` names no destination",
                    "for everything but these, add `networks = [\"0.0.0.0/0\", \"::/0\"]`",
                );
            }
            to.except = self.destinations(except, lists).map(Box::new);
        }
        Some(to)
    }

    /// `ports`; none is all of them.
    pub fn ports(&mut self, field: &Field<'_>) -> Vec<Ports> {
        let form = Elements { example: "tcp/443", number: Some(|n| format!("tcp/{n}")) };
        self.elements(field, &form, values::ports)
    }
}

const fn strings(example: &'static str) -> Elements {
    Elements { example, number: None }
}
