//! The schema that is sent, against the table of what grammars do with schemas.

use logwarden_core::{ProfileName, profile::Profile, prompt, reply};
use logwarden_tests::ollama::schema::lint;

#[test]
fn no_grammar_stumbles_over_our_schema_or_ignores_a_part_of_it() {
    for rows in (0..=300).chain([1000, 9999, 100_000]) {
        let problems = lint(&reply::schema(rows));
        assert!(problems.is_empty(), "{rows} rows: {problems:#?}");
    }
}

#[test]
fn rows_that_do_not_exist_cannot_be_cited_where_the_grammar_is_kept() {
    let schema = reply::schema(7);
    let number = schema.pointer("/properties/findings/items/properties/cites/items").unwrap();
    assert_eq!((number["minimum"].as_u64(), number["maximum"].as_u64()), (Some(1), Some(7)));
}

#[test]
fn the_prompt_says_what_every_field_is_since_no_description_reaches_the_model() {
    fn names(schema: &serde_json::Value, found: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            found.push(name.clone());
            names(property, found);
        }
        if schema.get("items").is_some() {
            names(&schema["items"], found);
        }
    }
    let mut found = Vec::new();
    names(&reply::schema(7), &mut found);
    assert!(found.len() >= 6, "{found:?}");
    let told = prompt::system(&Profile::new(ProfileName::general(), ""));
    let missing: Vec<_> = found.iter().filter(|name| !told.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?} are not in the prompt");
}
