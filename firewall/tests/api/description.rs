//! The OpenAPI description, against the server.

use serde_json::{Value, json};

use crate::{
    stored,
    world::{Daemon, event},
};

/// Whether a value is what a schema of the description says.
fn check(description: &Value, schema: &Value, value: &Value) {
    let whole = json!({"$defs": description["components"]["schemas"], "allOf": [schema]});
    let whole = whole.to_string().replace("#/components/schemas/", "#/$defs/");
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let validator = jsonschema::validator_for(&whole).expect("a schema");
    let wrong: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\nin {value:#}");
}

#[test]
fn every_path_is_described_and_answers_as_described() {
    if !crate::rights::is_root() {
        return;
    }
    let daemon = Daemon::new();
    stored::store(daemon.folder.path(), [event(1, "deny", "a.example", "ada")]);
    let description = daemon.get("/v1/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().expect("paths");
    let mut described = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            described.push(format!("{} {path}", method.to_uppercase()));
            let body = match operation.get("requestBody") {
                Some(_) => json!({"destination": "1.2.3.4"}).to_string(),
                None => String::new(),
            };
            let responses = &operation["responses"];
            let schema = |status: &str, kind: &str| &responses[status]["content"][kind]["schema"];
            let refused = daemon.ask("DELETE", path, "");
            assert_eq!(refused.status, 405, "{path}");
            check(&description, schema("default", "application/json"), &refused.json());
            // It never ends.
            if path == "/v1/verdicts" {
                continue;
            }
            let answer = daemon.ask(&method.to_uppercase(), path, &body);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            if answer.head.contains("content-type: application/jsonl") {
                assert!(responses["200"]["content"]["application/jsonl"].is_object());
                for line in answer.lines() {
                    check(&description, &json!({"$ref": "#/components/schemas/Event"}), &line);
                }
            } else {
                let schema = schema("200", "application/json");
                assert!(schema.is_object(), "{path}: {operation}");
                check(&description, schema, &answer.json());
            }
        }
    }
    described.sort();
    assert_eq!(
        described,
        [
            "GET /v1/lists",
            "GET /v1/log",
            "GET /v1/openapi.json",
            "GET /v1/policies",
            "GET /v1/status",
            "GET /v1/verdicts",
            "POST /v1/explain",
            "POST /v1/lists/update",
            "POST /v1/off",
            "POST /v1/reload",
            "POST /v1/rollback",
        ]
    );
}

#[test]
fn everything_that_is_told_is_described() {
    let daemon = Daemon::new();
    let description = daemon.get("/v1/openapi.json").json();
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    // Enums of words have one description for all; the rest tells of each key.
    for (name, schema) in schemas {
        assert!(schema["description"].is_string(), "{name}");
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let says = property["description"].is_string() || property.get("oneOf").is_some();
            assert!(says, "{name}.{key}: {property}");
        }
    }
    let parameters = description["paths"]["/v1/log"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<&str> = parameters.iter().filter_map(|one| one["name"].as_str()).collect();
    let all = "since until app user country owner host policy rule verdict";
    assert_eq!(names.join(" "), all);
    // What is sent has no key that the description does not know.
    let status = daemon.get("/v1/status").json();
    for key in status.as_object().unwrap().keys() {
        assert!(schemas["Status"]["properties"].get(key).is_some(), "{key}");
    }
}
