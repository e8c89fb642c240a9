use super::*;
use crate::policy::source::Origin;
use crate::policy::{Action, Default, SHIPPED};

fn organisations() -> Organisations {
    Organisations::embedded().unwrap()
}

fn source(name: &str, text: &str) -> Source {
    Source { origin: Origin::File(name.into()), content: Content::Text(Arc::from(text)) }
}

fn check(text: &str) -> (Vec<Policy>, Diagnostics) {
    load(&[source("p.toml", text)], &organisations())
}

#[test]
fn kitchen_sink() {
    let (p, d) = check(include_str!("/tmp/sink.toml"));
    println!("{}", d.render(false));
    for r in d.records() {
        println!("{}", serde_json::to_string(&r).unwrap());
    }
    assert!(p.is_empty());
}
#[test]
fn shipped_are_clean() {
    for (name, text) in SHIPPED {
        let (p, d) = check(text);
        println!("{}", d.render(false));
        assert_eq!(p[0].name, *name);
    }
}
