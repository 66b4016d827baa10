//! Whether anything in a message is active: a mention, a link, markup that a log or a model wrote, a control character.
//!
//! For the bytes that the notifiers send; nothing here knows how they escape.

use serde_json::{Value, json};

/// All strings in a document.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(list) => list.iter().for_each(|value| strings(value, found)),
        Value::Object(members) => members.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

/// Whether people cannot see it, or a terminal obeys it.
fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// What in a payload people cannot see.
///
/// # Errors
///
/// With the text.
pub fn visible(payload: &Value) -> Result<(), String> {
    let mut found = Vec::new();
    strings(payload, &mut found);
    for text in found {
        // The one invisible character of ours keeps backticks apart.
        let chars: Vec<char> = text.chars().collect();
        let ours = |at: usize| {
            chars[at] == '\u{200b}' && (chars.get(at + 1) == Some(&'`') || (at > 0 && chars[at - 1] == '`'))
        };
        if let Some(hidden) = (0..chars.len()).filter(|at| !ours(*at)).map(|at| chars[at]).find(|c| is_hidden(*c)) {
            return Err(format!("{hidden:?} in {text:?}"));
        }
    }
    Ok(())
}

/// What in a text for the terminal is more than text.
///
/// # Errors
///
/// With the text.
pub fn terminal(drawn: &str) -> Result<(), String> {
    match drawn.chars().find(|c| is_hidden(*c)) {
        Some(hidden) => Err(format!("{hidden:?} in {drawn:?}")),
        None => Ok(()),
    }
}

/// Discord's markdown without its code: what is read as markup.
fn outside_code(markdown: &str) -> Result<String, String> {
    let mut outside = String::new();
    let mut rest = markdown;
    while let Some(at) = rest.find('`') {
        let escaped = rest[..at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
        outside.push_str(&rest[..at]);
        if escaped {
            outside.push('`');
            rest = &rest[at + 1..];
            continue;
        }
        let mark = if rest[at..].starts_with("```") { "```" } else { "`" };
        let code = &rest[at + mark.len()..];
        let end = code.find(mark).ok_or_else(|| format!("code without an end in {markdown:?}"))?;
        rest = &code[end + mark.len()..];
    }
    outside.push_str(rest);
    Ok(outside)
}

/// What in a payload for Discord is active, but for our own `link`.
///
/// # Errors
///
/// With the text.
pub fn discord(payload: &Value, link: Option<&str>) -> Result<(), String> {
    visible(payload)?;
    if payload["allowed_mentions"] != json!({ "parse": [] }) {
        return Err(format!("mentions are allowed: {}", payload["allowed_mentions"]));
    }
    let content = payload["content"].as_str().unwrap_or_default();
    if content.contains(['@', '<', '`', '[', '*', '#', '|', '/', '\n']) {
        return Err(format!("{content:?}"));
    }
    let embed = &payload["embeds"][0];
    let fields = embed["fields"].as_array().cloned().unwrap_or_default();
    let texts = [&embed["title"], &embed["description"]].into_iter().chain(fields.iter().map(|field| &field["value"]));
    for text in texts.filter_map(Value::as_str) {
        if !text.matches("```").count().is_multiple_of(2) {
            return Err(format!("a fence is open: {text:?}"));
        }
        let mut ours = outside_code(text)?;
        if let Some(link) = link {
            ours = ours.replace(&format!("[Open in Grafana]({link})"), "");
        }
        if ours.contains("://") {
            return Err(format!("a link: {ours:?}"));
        }
        let mut before = ' ';
        for c in ours.chars() {
            if matches!(c, '@' | '[' | ']') && before != '\\' {
                return Err(format!("{c:?} in {ours:?}"));
            }
            before = if before == '\\' { ' ' } else { c };
        }
        for (at, _) in ours.match_indices('<') {
            let escapes = ours[..at].bytes().rev().take_while(|b| *b == b'\\').count();
            if !ours[at..].starts_with("<t:") && escapes % 2 == 0 {
                return Err(format!("a mention: {ours:?}"));
            }
        }
    }
    match (&embed["url"], link) {
        (Value::Null, _) => Ok(()),
        (Value::String(url), Some(link)) if url == link => Ok(()),
        (url, _) => Err(format!("a link: {url}")),
    }
}

/// What in a payload for Slack is active, but for our own `link`.
///
/// # Errors
///
/// With the text.
pub fn slack(payload: &Value, link: Option<&str>) -> Result<(), String> {
    visible(payload)?;
    let link = link.map(|link| format!("<{}|Open in Grafana>", link.replace('&', "&amp;")));
    let mut markup = vec![&payload["text"]];
    for block in payload["blocks"].as_array().into_iter().flatten() {
        match block["type"].as_str() {
            Some("header") if block["text"]["text"].as_str().is_some_and(|text| text.contains(['<', '>'])) => {
                return Err(format!("{block}"));
            }
            Some("section") if block["text"]["verbatim"] != true => return Err(format!("not verbatim: {block}")),
            Some("section") => markup.push(&block["text"]["text"]),
            Some("context") => markup.push(&block["elements"][0]["text"]),
            _ => {}
        }
    }
    for text in markup.into_iter().filter_map(Value::as_str) {
        let text = link.as_ref().map_or_else(|| text.to_owned(), |link| text.replace(link, ""));
        let outside: String = text.split('`').step_by(2).collect();
        if text.contains(['<', '>']) || !text.matches('`').count().is_multiple_of(2) || outside.contains("://") {
            return Err(format!("{text:?}"));
        }
        for (at, _) in text.match_indices('&') {
            if !["&amp;", "&lt;", "&gt;"].iter().any(|entity| text[at..].starts_with(entity)) {
                return Err(format!("{text:?}"));
            }
        }
    }
    Ok(())
}
