//! As much LogQL as is needed to ask for single streams and counts, and to warn.

use std::fmt::Write;

use crate::answer::Labels;

/// Stages that merge or relabel lines inside Loki.
const REWRITING: [&str; 6] = ["line_format", "label_format", "drop", "keep", "decolorize", "unpack"];
/// Stages whose failure makes a metric query fail.
const PARSERS: [&str; 5] = ["json", "logfmt", "pattern", "regexp", "unpack"];

/// Splits a log query into its selector, braces included, and its pipeline; `None` when it is no log query.
pub(crate) fn split(query: &str) -> Option<(&str, &str)> {
    let query = query.trim();
    if !query.starts_with('{') {
        return None;
    }
    let end = outside_strings(query).find(|(_, c)| *c == '}')?.0 + 1;
    Some((&query[..end], query[end..].trim()))
}

/// The words that follow a `|`, in order.
fn stages(query: &str) -> Vec<&str> {
    let Some((_, pipeline)) = split(query) else { return Vec::new() };
    let bars = outside_strings(pipeline).filter(|(_, c)| *c == '|').map(|(i, _)| i);
    bars.map(|i| {
        let rest = pipeline[i + 1..].trim_start();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        &rest[..end]
    })
    .collect()
}

/// The stages that rewrite lines or labels.
pub(crate) fn rewriting(query: &str) -> Vec<&str> {
    stages(query).into_iter().filter(|stage| REWRITING.contains(stage)).collect()
}

/// The query that counts the lines of `query` over `range` (`1m`).
pub(crate) fn count(query: &str, range: &str) -> String {
    let query = query.trim();
    let parses = stages(query).into_iter().any(|stage| PARSERS.contains(&stage));
    // A line that a parser cannot read fails a whole metric query, unless its error label is dropped.
    let keep = if parses { " | drop __error__, __error_details__" } else { "" };
    // A comment ends with its line.
    let separator = if query.contains('#') { "\n" } else { "" };
    format!("sum(count_over_time({query}{separator}{keep} [{range}]))")
}

/// The query for one stream of `query`.
pub(crate) fn of_stream(query: &str, labels: &Labels) -> Option<String> {
    let (_, pipeline) = split(query)?;
    let mut selector = String::from("{");
    for (i, (name, value)) in labels.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        let _ = write!(selector, "{comma}{name}=");
        quote(&mut selector, value);
    }
    Some(format!("{selector}}} {pipeline}").trim_end().to_owned())
}

fn quote(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The characters of a query that are in no string and no comment.
fn outside_strings(query: &str) -> impl Iterator<Item = (usize, char)> {
    let mut inside: Option<char> = None;
    let mut escaped = false;
    query.char_indices().filter(move |(_, c)| match inside {
        Some('#') => {
            inside = (*c != '\n').then_some('#');
            false
        }
        Some(quote) => {
            if escaped {
                escaped = false;
            } else if *c == '\\' && quote == '"' {
                escaped = true;
            } else if *c == quote {
                inside = None;
            }
            false
        }
        None if matches!(c, '"' | '`' | '#') => {
            inside = Some(*c);
            false
        }
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_split_at_the_brace_that_closes_the_selector() {
        assert_eq!(split(r#" {a="}", b=`"}`} |= "x" "#), Some((r#"{a="}", b=`"}`}"#, r#"|= "x""#)));
        assert_eq!(split(r#"{a="\"}"}"#), Some((r#"{a="\"}"}"#, "")));
        assert_eq!(split("count_over_time({a=\"b\"}[1m])"), None);
        assert_eq!(split("{a=\"b\""), None);
    }

    #[test]
    fn rewriting_stages_are_found_outside_of_strings_only() {
        assert_eq!(
            rewriting(r#"{a="b"} |= "| drop x" | json | line_format "{{.y}}" | drop host"#),
            ["line_format", "drop"]
        );
        assert!(rewriting(r#"{a="b"} | json |~ `\| keep` # | drop"#).is_empty());
    }

    #[test]
    fn counts_survive_parsers_and_comments() {
        assert_eq!(count(r#"{a="b"} |= "x""#, "1m"), r#"sum(count_over_time({a="b"} |= "x" [1m]))"#);
        insta::assert_snapshot!(count("{a=\"b\"} | json # why", "1m"), @r#"
        sum(count_over_time({a="b"} | json # why
         | drop __error__, __error_details__ [1m]))
        "#);
    }

    #[test]
    fn a_stream_is_asked_for_by_all_its_labels() {
        let labels = [("host", "a\"b\\"), ("job", "x\n")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let query = of_stream(r#"{job=~".+"} |= "y""#, &labels);
        assert_eq!(query.as_deref(), Some(r#"{host="a\"b\\", job="x\n"} |= "y""#));
    }
}
