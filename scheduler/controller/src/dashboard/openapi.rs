//! The description of the API for programs: OpenAPI 3.1, from the table of routes and the types of the answers.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::route::{ROUTES, Route, Subject};
use crate::planner::{GangReport, NodeReport, Prospect, QueueReport, TopologyReport};

/// The description.
pub(super) fn description() -> &'static Value {
    static DESCRIPTION: LazyLock<Value> = LazyLock::new(describe);
    &DESCRIPTION
}

fn describe() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    let mut paths = Map::new();
    for route in ROUTES {
        let method = if route.is_post() { "post" } else { "get" };
        paths.insert(route.path.to_owned(), json!({ method: operation(route, &mut generator) }));
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Muster's scheduler",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Why gangs wait, when they start, and what would help. The bearer token is one of the \
                            Kubernetes API: whoever may list the pods, nodes or queues there may read of them here.",
        },
        "paths": paths,
        "security": [{ "token": [] }],
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let in_path = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = route.parameters.iter().map(|parameter| {
        let schema = match parameter.name {
            "limit" | "addNodes" => json!({"type": "integer"}),
            "phase" => json!({"type": "string", "enum": ["Waiting", "Running"]}),
            _ => json!({"type": "string"}),
        };
        json!({"name": parameter.name, "in": "query", "description": parameter.about, "schema": schema})
    });
    let problem = json!({
        "description": "What is wrong (RFC 9457)",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    let mut operation = json!({
        "operationId": id(route.subject),
        "summary": route.about,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {
            "200": {
                "description": "The answer; its ETag in If-None-Match makes it 304 as long as nothing changes",
                "content": {"application/json": {"schema": answer(route.subject, generator)}},
            },
            "default": problem,
        },
    });
    if route.is_post() {
        let manifest = json!({"schema": {"type": "string"}});
        operation["requestBody"] = json!({
            "description": "A manifest of one or several objects",
            "content": {"application/yaml": manifest, "application/json": {"schema": {"type": "object"}}},
        });
    }
    operation
}

fn id(subject: Subject) -> &'static str {
    match subject {
        Subject::Gangs => "listGangs",
        Subject::Gang => "readGang",
        Subject::Queues => "listQueues",
        Subject::Nodes => "listNodes",
        Subject::Topology => "readTopology",
        Subject::WhatIf => "askWhatIf",
        Subject::Description => "readDescription",
    }
}

fn answer(subject: Subject, generator: &mut SchemaGenerator) -> Value {
    match subject {
        Subject::Gangs => {
            let mut schema = list::<GangReport>("gangs", generator);
            schema["properties"]["continue"] = json!({"type": "string", "description": "There are more; the parameter `continue` of the next page"});
            schema
        }
        Subject::Gang => generator.subschema_for::<GangReport>().to_value(),
        Subject::Queues => list::<QueueReport>("queues", generator),
        Subject::Nodes => list::<NodeReport>("nodes", generator),
        Subject::Topology => generator.subschema_for::<TopologyReport>().to_value(),
        Subject::WhatIf => list::<Prospect>("gangs", generator),
        Subject::Description => json!({"type": "object"}),
    }
}

fn list<T: JsonSchema>(name: &str, generator: &mut SchemaGenerator) -> Value {
    let items = generator.subschema_for::<T>().to_value();
    json!({"type": "object", "required": [name], "properties": {name: {"type": "array", "items": items}}})
}

fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong, for people"},
            "hint": {"type": "string", "description": "What to do about it"},
            "leader": {"type": "string", "description": "The replica that leads and has the answer"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_described() {
        insta::assert_json_snapshot!(description());
    }

    /// Every schema that is referred to is there.
    #[test]
    fn references_lead_somewhere() {
        let text = description().to_string();
        let names = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
        let names: Vec<&str> = names.collect();
        assert!(names.contains(&"GangReport") && names.contains(&"Alternative"), "{names:?}");
        for name in names {
            assert!(description()["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
