//! What stands for names in a document that is handed on: every text that is not of the product's own few words becomes a
//! number, the same for the same text.

use std::collections::HashMap;

use serde_json::Value;

/// Fields whose texts are words of the product, versions, plans of times and rates, or ids that were drawn.
const PLAIN: [&str; 34] = [
    "answer",
    "architecture",
    "boot",
    "code",
    "connection",
    "data",
    "differs",
    "from",
    "health",
    "history",
    "kernel",
    "key",
    "kind",
    "level",
    "life",
    "method",
    "mode",
    "need",
    "next",
    "part",
    "phase",
    "plan",
    "role",
    "set_id",
    "severity",
    "standing",
    "state",
    "step",
    "system",
    "topic",
    "trouble",
    "uuid",
    "values",
    "version",
];

/// Lines of the doctor that speak of the machine alone.
const OF_THE_MACHINE: [&str; 10] =
    ["by design", "clock", "descriptors", "fuse", "kernel", "path", "profile", "time", "user", "version"];

/// See the module.
#[derive(Default)]
pub(super) struct Veil {
    seen: HashMap<String, usize>,
}

impl Veil {
    pub(super) fn over(&mut self, document: &mut Value) {
        self.over_field("", document);
    }

    fn over_field(&mut self, field: &str, value: &mut Value) {
        match value {
            Value::String(text) if !text.is_empty() && !PLAIN.contains(&field) => {
                *text = self.stands_for(text)
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.over_field(field, item)),
            Value::Object(fields) => {
                let topic = fields.get("topic").and_then(Value::as_str).unwrap_or_default();
                let speaks = OF_THE_MACHINE.contains(&topic);
                for (name, value) in fields {
                    if !(speaks && name == "text") {
                        self.over_field(name, value);
                    }
                }
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn stands_for(&mut self, text: &str) -> String {
        let next = self.seen.len() + 1;
        format!("~{}", self.seen.entry(text.to_owned()).or_insert(next))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_become_numbers_and_words_stay() {
        let mut document = json!({
            "lines": [
                { "level": "ok", "topic": "kernel", "text": "6.1" },
                { "level": "warn", "topic": "room", "text": "/srv/secret: 1 MiB free" },
            ],
            "status": {
                "name": "secret", "state": "started", "reason": "", "applied": 7, "limit": null, "needs_copy": false,
                "rules": ["exclude secret", "/srv/secret: 1 MiB free"],
                "aside": { "objects": [{ "path": "secret", "op": "write" }] },
            },
        });
        Veil::default().over(&mut document);
        assert_eq!(
            document,
            json!({
                "lines": [
                    { "level": "ok", "topic": "kernel", "text": "6.1" },
                    { "level": "warn", "topic": "room", "text": "~1" },
                ],
                "status": {
                    "name": "~3", "state": "started", "reason": "", "applied": 7, "limit": null, "needs_copy": false,
                    "rules": ["~4", "~1"],
                    "aside": { "objects": [{ "path": "~3", "op": "~2" }] },
                },
            })
        );
    }
}
