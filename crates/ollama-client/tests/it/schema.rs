//! The schema that is sent, against the table of what grammars do with schemas.

use logwarden_core::reply;
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
