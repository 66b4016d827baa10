//! The part of LogQL that a log source needs.

use regex::Regex;

use super::store::{Entry, Labels};

/// A parsed log query.
#[derive(Debug)]
pub(super) struct LogQuery {
    matchers: Vec<(String, Test)>,
    filters: Vec<Test>,
    drops: Vec<String>,
    line: Option<String>,
    parses: bool,
    /// Whether it filters lines: only then Loki caches.
    pub(super) filtered: bool,
}

/// A metric query: a log query, counted over a range.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) query: LogQuery,
    pub(super) range: i64,
    pub(super) summed: bool,
}

#[derive(Debug)]
enum Test {
    Equal(String, bool),
    Contains(String, bool),
    Matches(Regex, bool),
}

impl Test {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Equal(value, wanted) => (text == value) == *wanted,
            Self::Contains(value, wanted) => text.contains(value.as_str()) == *wanted,
            Self::Matches(regex, wanted) => regex.is_match(text) == *wanted,
        }
    }
}

impl LogQuery {
    pub(super) fn selects(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|(name, test)| test.holds(labels.get(name).map_or("", String::as_str)))
    }

    pub(super) fn keeps(&self, entry: &Entry) -> bool {
        self.filters.iter().all(|test| test.holds(&entry.text))
    }

    /// What `line_format` makes of an entry, and what the parsers add.
    pub(super) fn line<'a>(&'a self, entry: &'a Entry) -> &'a str {
        self.line.as_deref().unwrap_or(&entry.text)
    }

    pub(super) fn labels(&self, labels: &Labels) -> Labels {
        labels.iter().filter(|(k, _)| !self.drops.contains(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub(super) fn parsed(&self, entry: &Entry) -> Labels {
        if !self.parses {
            return Labels::new();
        }
        let pairs = entry.text.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.map(|(k, v)| (k.to_owned(), v.trim_matches('"').to_owned())).collect()
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn string(&mut self) -> Result<String, String> {
        self.space();
        let rest = self.rest();
        let quote =
            rest.chars().next().filter(|c| matches!(c, '"' | '`')).ok_or_else(|| self.error("expecting STRING"))?;
        let mut out = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, c)) => out.push(c),
                    None => break,
                },
                c if c == quote => {
                    self.at += i + 1;
                    return Ok(out);
                }
                c => out.push(c),
            }
        }
        Err(self.error("literal not terminated"))
    }

    fn error(&self, what: &str) -> String {
        let got = if self.rest().trim().is_empty() { "$end" } else { "IDENTIFIER" };
        format!("parse error at line 1, col {}: syntax error: unexpected {got}, {what}", self.at + 1)
    }

    fn regex(&self, pattern: &str, whole: bool, stage: &str) -> Result<Regex, String> {
        let source = if whole { format!("^(?s:{pattern})$") } else { pattern.to_owned() };
        Regex::new(&source).map_err(|_| format!("parse error : stage '{stage}' : error parsing regexp: {pattern}"))
    }

    fn log_query(&mut self) -> Result<LogQuery, String> {
        let mut query = LogQuery {
            matchers: Vec::new(),
            filters: Vec::new(),
            drops: Vec::new(),
            line: None,
            parses: false,
            filtered: false,
        };
        if !self.take("{") {
            return Err(self.error("expecting {"));
        }
        let mut selective = false;
        while !self.take("}") {
            let name = self.word().to_owned();
            let operator = ["=~", "!~", "!=", "="].into_iter().find(|token| self.take(token));
            let operator = operator.filter(|_| !name.is_empty()).ok_or_else(|| self.error("expecting } or ,"))?;
            let value = self.string()?;
            let test = match operator {
                "=" => Test::Equal(value, true),
                "!=" => Test::Equal(value, false),
                "=~" => Test::Matches(self.regex(&value, true, &value)?, true),
                _ => Test::Matches(self.regex(&value, true, &value)?, false),
            };
            selective |= matches!(operator, "=" | "=~") && !test.holds("");
            query.matchers.push((name, test));
            if !self.take(",") && !self.rest().trim_start().starts_with('}') {
                return Err(self.error("expecting } or ,"));
            }
        }
        if !selective {
            return Err("parse error : queries require at least one regexp or equality matcher that does not have an \
                        empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but \
                        app=~\".+\" will"
                .into());
        }
        loop {
            self.space();
            if let Some(operator) = ["|=", "!=", "|~", "!~"].into_iter().find(|token| self.take(token)) {
                let value = self.string()?;
                query.filtered = true;
                let stage = format!("{operator} {value:?}");
                query.filters.push(match operator {
                    "|=" => Test::Contains(value, true),
                    "!=" => Test::Contains(value, false),
                    "|~" => Test::Matches(self.regex(&value, false, &stage)?, true),
                    _ => Test::Matches(self.regex(&value, false, &stage)?, false),
                });
            } else if self.take("|") {
                match self.word() {
                    "json" | "logfmt" | "decolorize" | "unpack" => query.parses = true,
                    "drop" => loop {
                        query.drops.push(self.word().to_owned());
                        if !self.take(",") {
                            break;
                        }
                    },
                    "line_format" => query.line = Some(self.string()?),
                    _ => return Err(self.error("expecting a stage")),
                }
            } else {
                return Ok(query);
            }
        }
    }
}

/// Reads a log query.
pub(super) fn parse(text: &str) -> Result<LogQuery, String> {
    let mut scanner = Scanner { text, at: 0 };
    if text.trim().is_empty() {
        return Err("parse error : syntax error: unexpected $end".into());
    }
    let query = scanner.log_query()?;
    scanner.space();
    if scanner.rest().is_empty() { Ok(query) } else { Err(scanner.error("expecting $end")) }
}

/// Reads `count_over_time(QUERY [RANGE])`, possibly in `sum(…)`; `None` when it is no metric query.
pub(super) fn parse_count(text: &str) -> Option<Result<Count, String>> {
    let mut scanner = Scanner { text, at: 0 };
    let summed = scanner.take("sum(");
    if !scanner.take("count_over_time(") {
        return None;
    }
    Some((|| {
        let query = scanner.log_query()?;
        if !scanner.take("[") {
            return Err(scanner.error("expecting RANGE"));
        }
        let range = scanner.word();
        let range = duration(range).ok_or_else(|| scanner.error("expecting DURATION"))?;
        for token in ["]", ")"].into_iter().chain(summed.then_some(")")) {
            if !scanner.take(token) {
                return Err(scanner.error("expecting )"));
            }
        }
        Ok(Count { query, range, summed })
    })())
}

/// Nanoseconds of `1m`, `60s`, `5ns`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = match &text[digits..] {
        "ns" => 1,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_like_those_of_the_real_one() {
        assert_eq!(
            parse("{job=\"nginx\"").unwrap_err(),
            "parse error at line 1, col 13: syntax error: unexpected $end, expecting } or ,"
        );
        assert_eq!(parse("").unwrap_err(), "parse error : syntax error: unexpected $end");
        assert!(parse("{job=~\".*\"}").unwrap_err().starts_with("parse error : queries require at least one"));
        assert!(parse("{job=~\".+\"} |= \"a\" !~ `b|c` | json").is_ok());
        assert!(parse_count("sum(count_over_time({job=\"a\"} |= \"x\" [1m]))").is_some_and(|count| count.is_ok()));
        assert!(parse_count("{job=\"a\"}").is_none());
    }
}
