//! What the grammars behind Ollama make of a JSON schema: the table of keywords as measured on llama.cpp of mid-2026
//! (which Ollama 0.30 to 0.33 carries), with notes on the generation after it.
//!
//! [`lint`] tells everything that is refused, ignored or dangerous; the fake server refuses [`Kind::Conversion`] and [`Kind::Grammar`] with
//! the real one's words, and the schema that we send must have no problem at all.

use super::json::Json;

/// Something that a grammar does not do as the schema says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a JSON pointer.
    pub pointer: String,
    /// How bad.
    pub kind: Kind,
    /// What, in words.
    pub what: String,
}

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP 400: the schema cannot be converted; `what` is the server's own detail.
    Conversion,
    /// HTTP 400: the grammar made of it cannot be parsed.
    Grammar,
    /// Accepted, but not enforced, or not as written.
    Ignored,
    /// Accepted, and a small model can run away with it.
    Unbounded,
}

/// Everything about the schema that is refused, ignored or unbounded.
pub fn lint(schema: &serde_json::Value) -> Vec<Problem> {
    lint_json(&Json::from(schema))
}

pub(super) fn lint_json(schema: &Json) -> Vec<Problem> {
    let mut lint = Lint { root: schema, problems: Vec::new() };
    lint.visit(schema, &mut String::new(), 0);
    if schema.get("type").and_then(Json::as_str) != Some("object") && !schema.entries().is_empty() {
        lint.add("", Kind::Ignored, "the root should be an object");
    }
    lint.problems
}

/// The first reason for a refusal, if any: a conversion's detail, or `None` for a grammar.
pub(super) fn refusal(schema: &Json) -> Option<(Kind, String)> {
    let refused = |kind| lint_json(schema).into_iter().find(move |problem| problem.kind == kind);
    refused(Kind::Conversion).or_else(|| refused(Kind::Grammar)).map(|problem| (problem.kind, problem.what))
}

pub(super) fn has_empty_enum(schema: &Json) -> bool {
    lint_json(schema).iter().any(|problem| problem.what == EMPTY_ENUM)
}

const EMPTY_ENUM: &str = "an empty enum makes broken JSON";
const IGNORED: &[&str] = &[
    "multipleOf",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "patternProperties",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "default",
];
const TYPES: &[&str] = &["string", "number", "integer", "boolean", "null", "object", "array"];
const FORMATS: &[&str] = &["date", "time", "date-time", "uuid"];
const LONGEST_STRING: f64 = 500.0;
const LONGEST_ARRAY: f64 = 200.0;
const DEEPEST: usize = 32;

struct Lint<'a> {
    root: &'a Json,
    problems: Vec<Problem>,
}

impl Lint<'_> {
    fn add(&mut self, pointer: &str, kind: Kind, what: impl Into<String>) {
        self.problems.push(Problem { pointer: pointer.to_owned(), kind, what: what.into() });
    }

    fn visit(&mut self, schema: &Json, pointer: &mut String, depth: usize) {
        if depth > DEEPEST {
            return self.add(pointer, Kind::Unbounded, "nested too deeply");
        }
        if !matches!(schema, Json::Object(_)) {
            return self.add(pointer, Kind::Conversion, format!("Unrecognized schema: {schema}"));
        }
        for (key, _) in schema.entries().iter().filter(|(key, _)| IGNORED.contains(&key.as_str())) {
            self.add(pointer, Kind::Ignored, format!("`{key}` is ignored"));
        }
        if let Some(target) = schema.get("$ref") {
            return self.reference(target, schema, pointer);
        }
        for union in ["anyOf", "oneOf"] {
            if let Some(branches) = schema.get(union).and_then(Json::as_array) {
                if schema.get("properties").is_some() || schema.get("required").is_some() {
                    self.add(pointer, Kind::Ignored, format!("`properties` beside `{union}` are dropped"));
                }
                return self.children(branches, union, pointer, depth);
            }
        }
        if let Some(parts) = schema.get("allOf").and_then(Json::as_array) {
            self.add(pointer, Kind::Ignored, "`allOf` degrades for anything but objects");
            return self.children(parts, "allOf", pointer, depth);
        }
        if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            if values.is_empty() {
                self.add(pointer, Kind::Ignored, EMPTY_ENUM);
            }
            return;
        }
        if schema.get("const").is_some() {
            return;
        }
        match schema.get("type") {
            Some(Json::String(name)) => self.typed(name, schema, pointer, depth),
            Some(Json::Array(names)) => {
                for name in names.iter().filter_map(Json::as_str) {
                    self.typed(name, schema, pointer, depth);
                }
            }
            _ if schema.get("properties").is_some() => self.object(schema, pointer, depth),
            _ if schema.get("items").is_some() || schema.get("prefixItems").is_some() => {
                self.array(schema, pointer, depth);
            }
            _ => self.add(pointer, Kind::Unbounded, "anything is allowed"),
        }
    }

    fn children(&mut self, schemas: &[Json], name: &str, pointer: &mut String, depth: usize) {
        for (index, schema) in schemas.iter().enumerate() {
            self.child(schema, &format!("{name}/{index}"), pointer, depth);
        }
    }

    fn child(&mut self, schema: &Json, name: &str, pointer: &mut String, depth: usize) {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(name);
        self.visit(schema, pointer, depth + 1);
        pointer.truncate(length);
    }

    fn reference(&mut self, target: &Json, schema: &Json, pointer: &str) {
        let target = target.as_str().unwrap_or_default();
        if schema.entries().len() > 1 {
            self.add(pointer, Kind::Ignored, "what stands beside `$ref` is ignored");
        }
        let found =
            target.strip_prefix("#/").and_then(|path| path.split('/').try_fold(self.root, |at, part| at.get(part)));
        if found.is_none() {
            self.add(pointer, Kind::Conversion, format!("Unsupported ref: {target}"));
        }
    }

    fn typed(&mut self, name: &str, schema: &Json, pointer: &mut String, depth: usize) {
        match name {
            "object" => self.object(schema, pointer, depth),
            "array" => self.array(schema, pointer, depth),
            "string" => self.string(schema, pointer),
            "integer" => {
                let low = ["minimum", "exclusiveMinimum"].iter().any(|key| schema.get(key).is_some());
                let high = ["maximum", "exclusiveMaximum"].iter().any(|key| schema.get(key).is_some());
                if !low || !high {
                    self.add(pointer, Kind::Unbounded, "an integer without a range has up to 16 digits");
                }
            }
            "number" => {
                for key in ["minimum", "maximum"] {
                    if schema.get(key).is_some() {
                        self.add(pointer, Kind::Ignored, format!("`{key}` of a number is ignored"));
                    }
                }
            }
            other if !TYPES.contains(&other) => {
                self.add(pointer, Kind::Conversion, format!("Unrecognized schema: {schema}"));
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &Json, pointer: &mut String, depth: usize) {
        let Some(properties) = schema.get("properties") else {
            return self.add(pointer, Kind::Unbounded, "an object without properties is open");
        };
        if !matches!(schema.get("additionalProperties"), None | Some(Json::Bool(false))) {
            self.add(pointer, Kind::Unbounded, "additional properties are unbounded");
        }
        let required: Vec<_> = schema
            .get("required")
            .and_then(Json::as_array)
            .unwrap_or_default()
            .iter()
            .filter_map(Json::as_str)
            .collect();
        let names: Vec<_> = properties.entries().iter().map(|(name, _)| name.as_str()).collect();
        for name in names.iter().filter(|name| !required.contains(name)) {
            self.add(pointer, Kind::Ignored, format!("`{name}` is optional: it comes after the required ones, or not"));
        }
        if !names.is_sorted() {
            self.add(pointer, Kind::Ignored, "properties are sorted by name on one of the two ways");
        }
        for (name, property) in properties.entries() {
            self.child(property, &format!("properties/{name}"), pointer, depth);
        }
    }

    fn array(&mut self, schema: &Json, pointer: &mut String, depth: usize) {
        match schema.get("maxItems").and_then(Json::as_f64) {
            Some(1999.0..=2001.0) => self.add(pointer, Kind::Grammar, "`maxItems` of about 2000"),
            Some(most) if most <= LONGEST_ARRAY => {}
            _ => self.add(pointer, Kind::Unbounded, "an array needs `maxItems` of at most 200"),
        }
        match (schema.get("items"), schema.get("prefixItems").and_then(Json::as_array)) {
            (Some(items), _) => self.child(items, "items", pointer, depth),
            (None, Some(items)) => self.children(items, "prefixItems", pointer, depth),
            (None, None) => self.add(pointer, Kind::Unbounded, "an array without `items` holds anything"),
        }
    }

    fn string(&mut self, schema: &Json, pointer: &str) {
        if schema.get("minLength").and_then(Json::as_f64).is_some_and(|least| least >= 2000.0) {
            self.add(pointer, Kind::Grammar, "`minLength` from 2000");
        }
        if let Some(pattern) = schema.get("pattern").and_then(Json::as_str) {
            if !pattern.starts_with('^') || !pattern.ends_with('$') {
                self.add(pointer, Kind::Conversion, "Pattern must start with '^' and end with '$'");
            } else if ["\\d", "\\w", "\\s", "\\D", "\\W", "\\S", "(?"].iter().any(|class| pattern.contains(class)) {
                self.add(pointer, Kind::Grammar, "a pattern with a class or a look-around");
            } else {
                self.add(pointer, Kind::Ignored, "later servers may ignore `pattern`");
            }
            return;
        }
        match schema.get("format").and_then(Json::as_str) {
            Some(format) if FORMATS.contains(&format) => return,
            Some(format) => self.add(pointer, Kind::Ignored, format!("`format` {format} is ignored")),
            None => {}
        }
        match schema.get("maxLength").and_then(Json::as_f64) {
            Some(2000.0) => self.add(pointer, Kind::Grammar, "`maxLength` of 2000"),
            Some(most) if most <= LONGEST_STRING => {}
            _ => self.add(pointer, Kind::Unbounded, "a string needs `maxLength` of at most 500"),
        }
    }
}

/// The properties of an object in the order in which a grammar makes them: required, then optional; sorted by name on the
/// native way.
pub(super) fn order(schema: &Json, sorted: bool) -> Vec<(&str, &Json)> {
    let required: Vec<_> =
        schema.get("required").and_then(Json::as_array).unwrap_or_default().iter().filter_map(Json::as_str).collect();
    let properties = schema.get("properties").map_or(&[][..], Json::entries);
    let mut properties: Vec<_> = properties.iter().map(|(name, property)| (name.as_str(), property)).collect();
    if sorted {
        properties.sort_by_key(|(name, _)| *name);
    }
    let (mut first, second): (Vec<_>, Vec<_>) = properties.into_iter().partition(|(name, _)| required.contains(name));
    first.extend(second);
    first
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn property(schema: Value) -> Vec<Kind> {
        let schema = json!({"type": "object", "properties": {"v": schema}, "required": ["v"]});
        lint(&schema).into_iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn keywords_are_judged_as_the_real_converter_treats_them() {
        let cases = [
            (json!({"type": "string", "maxLength": 500}), vec![]),
            (json!({"type": "string", "maxLength": 2000}), vec![Kind::Grammar]),
            (json!({"type": "string", "maxLength": 2001}), vec![Kind::Unbounded]),
            (json!({"type": "string", "pattern": "[0-9]+"}), vec![Kind::Conversion]),
            (json!({"type": "string", "pattern": "^\\d+$"}), vec![Kind::Grammar]),
            (json!({"type": "integer", "minimum": 1, "maximum": 9}), vec![]),
            (json!({"type": "integer", "minimum": 0}), vec![Kind::Unbounded]),
            (json!({"type": "number", "minimum": 0, "maximum": 1}), vec![Kind::Ignored, Kind::Ignored]),
            (json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 200}), vec![]),
            (json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 2000}), vec![Kind::Grammar]),
            (json!({"type": "strnig"}), vec![Kind::Conversion]),
            (json!(true), vec![Kind::Conversion]),
            (json!({"$ref": "#"}), vec![Kind::Conversion]),
            (json!({"enum": []}), vec![Kind::Ignored]),
            (json!({"enum": ["a", "b"]}), vec![]),
            (json!({"type": "string", "format": "ip"}), vec![Kind::Ignored, Kind::Unbounded]),
            (json!({"type": "object"}), vec![Kind::Unbounded]),
        ];
        for (schema, expected) in cases {
            assert_eq!(property(schema.clone()), expected, "{schema}");
        }
    }
}
