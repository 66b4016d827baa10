//! Links into Grafana's Explore, with the exact query and time (the format since Grafana 10).

use std::time::Duration;

use logwarden_core::Timestamp;
use serde_json::json;

/// Shown before and after what the link is about.
const MARGIN: Duration = Duration::from_secs(300);

/// Where Explore is, and which data source it should ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explore {
    /// Grafana's address, with a path where it has one: `https://grafana.example`.
    pub base: url::Url,
    /// The Loki data source's UID (not its name).
    pub datasource_uid: String,
    /// The organisation.
    pub org_id: u64,
}

impl Explore {
    /// The link that shows the lines which `expr` matches from five minutes before `from` until five minutes after `to`.
    ///
    /// Build `expr` from stream selectors and constants of templates ([`selector`]), never from text of a log line: it
    /// may hold secrets, and it is whatever an attacker wrote.
    pub fn link(&self, expr: &str, from: Timestamp, to: Timestamp) -> String {
        let millis = |time: Timestamp| time.nanos().div_euclid(1_000_000).to_string();
        let datasource = json!({ "type": "loki", "uid": self.datasource_uid });
        let panes = json!({ "lw": {
            "datasource": self.datasource_uid,
            "queries": [{
                "refId": "A",
                "datasource": datasource,
                "expr": expr,
                "queryType": "range",
                "editorMode": "code",
            }],
            "range": { "from": millis(from.minus(MARGIN)), "to": millis(to.plus(MARGIN)) },
        }});
        let mut base = self.base.clone();
        base.set_query(None);
        base.set_fragment(None);
        let base = base.as_str().trim_end_matches('/');
        format!("{base}/explore?schemaVersion=1&panes={}&orgId={}", encode(&panes.to_string()), self.org_id)
    }
}

/// A LogQL selector with line filters: `{host="web-1"} |= "Failed password for"`.
pub fn selector<'a>(
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    contains: impl IntoIterator<Item = &'a str>,
) -> String {
    let labels: Vec<String> = labels.into_iter().map(|(name, value)| format!("{name}={}", quote(value))).collect();
    let mut expr = format!("{{{}}}", labels.join(", "));
    for constant in contains {
        expr.push_str(" |= ");
        expr.push_str(&quote(constant));
    }
    expr
}

/// A LogQL string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Percent-encodes all but RFC 3986's unreserved characters: a plus sign is not a space here.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_carries_query_and_time_exactly() {
        let explore = Explore {
            base: "https://grafana.example/sub/".parse().unwrap(),
            datasource_uid: "P8E80F9AEF21F6940".into(),
            org_id: 1,
        };
        let expr = selector([("host", "web-1"), ("job", "a\"b\\c")], ["100% + of \"x\"", "tab\t"]);
        assert_eq!(expr, r#"{host="web-1", job="a\"b\\c"} |= "100% + of \"x\"" |= "tab\t""#);
        let link = explore.link(&expr, Timestamp::from_secs(1_795_230_000), Timestamp::from_secs(1_795_230_060));
        let url = url::Url::parse(&link).unwrap();
        assert!(link.starts_with("https://grafana.example/sub/explore?schemaVersion=1&panes=%7B%22"));
        assert!(link.ends_with("&orgId=1"));
        let panes = url.query_pairs().find(|(key, _)| key == "panes").unwrap().1.into_owned();
        let panes: serde_json::Value = serde_json::from_str(&panes).unwrap();
        assert_eq!(panes["lw"]["queries"][0]["expr"], expr.as_str());
        assert_eq!(panes["lw"]["queries"][0]["datasource"]["uid"], "P8E80F9AEF21F6940");
        assert_eq!(panes["lw"]["range"]["from"], "1795229700000");
        assert_eq!(panes["lw"]["range"]["to"], "1795230360000");
        assert!(link.len() < 700, "{}", link.len());
    }

    #[test]
    fn any_query_and_time_gives_one_link() {
        let explore = Explore { base: "http://[::1]:3000".parse().unwrap(), datasource_uid: "a b".into(), org_id: 7 };
        let link = explore.link("<>()|\n\u{202e}`", Timestamp::MIN, Timestamp::MAX);
        assert!(link.is_ascii() && !link.contains(['<', '>', '(', ')', '|', ' ', '`']), "{link}");
    }
}
