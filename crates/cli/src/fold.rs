//! `fold`: which templates a log consists of.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write as _},
    num::NonZeroU64,
    ops::RangeInclusive,
};

use console::Style;
use logwarden_config::SystemEnv;
use logwarden_core::{
    ProfileName,
    env::Env,
    error::chain,
    source::{Budget, LogSource, Seen, Shortened},
};
use logwarden_notifiers::text::Clean;
use logwarden_templates::{Config, Level, Line, Miner, SlotKind, Summary, Tallied, Tally, Timestamp, neighbours};
use serde::Serialize;

use crate::{
    args::{Fold, TableFormat},
    failure::Failure,
    output::{self, amount, grouped},
    program,
    reading::{Reading, STOPPED},
};

/// Lines read at once.
const PAGE: Budget = Budget { lines: 10_000, bytes: 8 << 20, now: Timestamp::from_secs(0) };
/// Neighbours that `--around` shows on each side.
const AROUND: u64 = 5;
/// Narrower windows get two lines for each template.
const NARROW: usize = 100;

/// Runs the command.
pub(crate) async fn fold(args: &Fold) -> Result<u8, Failure> {
    let source = Reading::new(&args.files, vec![ProfileName::general()], args.timezone.as_deref())?;
    let budget = Budget { now: SystemEnv.now(), ..PAGE };
    // Whoever asks for the templates of a log wants our own lines, too.
    let config = Config { headerless: args.content, own_services: Vec::new(), ..Config::default() };
    let assign = args.format == TableFormat::Csv || args.around.is_some();
    let mut tally = Tally::new(Miner::new(config), assign);
    let mut around = args.around.map(Around::new);
    let (mut remarks, mut shortened) = (Vec::new(), Vec::new());
    let (mut cursor, mut incomplete) = (None, false);
    loop {
        let page = source
            .read(cursor.as_ref(), &Seen::default(), budget)
            .await
            .map_err(|error| Failure::failed("cannot go on reading").because(&error))?;
        if let Some(around) = &mut around {
            around.look(&page.lines);
        }
        tally.page(page.lines.iter().map(Line::record));
        for problem in &page.problems {
            incomplete = true;
            let hint = problem.error.hint().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
            let text = chain(&problem.error);
            // A file's error names it already.
            let named = text.starts_with(&problem.subject);
            let subject = if named { String::new() } else { format!("{}: ", problem.subject) };
            remarks.push(format!("{subject}{text}{hint}"));
        }
        for one in page.shortened {
            Shortened::add(&mut shortened, one);
        }
        cursor = Some(page.next);
        if page.finished {
            break;
        }
    }
    let tallied = tally.finish();
    source.progress().finish_and_clear();
    let stopped = *source.stopped().borrow();
    if stopped {
        remarks.push("stopped early: this is what was read so far".to_owned());
    } else if tallied.counts.read == 0 && remarks.is_empty() {
        remarks.push(source.nothing_in());
    }
    remarks.extend(shortened.iter().map(ToString::to_string));
    remarks.extend(bounds(&tallied));

    let written = match (&around, args.format) {
        (Some(around), format) => output::write(around.show(&tallied, format)?.as_bytes()),
        (None, TableFormat::Text) if incomplete && tallied.counts.read == 0 => Ok(()),
        (None, TableFormat::Text) => {
            let style = output::style(args.color);
            output::write(table(&tallied, args.top, output::columns(), style.color).as_bytes())
        }
        (None, TableFormat::Csv) => csv(&tallied, args.top, &mut io::stdout().lock()),
        (None, TableFormat::Json) => json(&tallied, args.top, &mut io::stdout().lock()),
    };
    for remark in remarks {
        let _ = writeln!(io::stderr().lock(), "{}: {remark}", program::name());
    }
    written?;
    Ok(if stopped { STOPPED } else { u8::from(incomplete) })
}

/// Where the result is coarser than it could be.
fn bounds(tallied: &Tallied) -> Vec<String> {
    let counts = &tallied.counts;
    let mut remarks = Vec::new();
    if counts.coarse > 0 {
        let lines = amount(counts.coarse, "line was", "lines were");
        remarks.push(format!("{lines} folded coarsely: a program floods with ever new text"));
    }
    if counts.evicted > 0 {
        let templates = amount(counts.evicted, "rarely used template", "rarely used templates");
        remarks.push(format!("{templates} left memory; lines like them may be counted under two ids"));
    }
    let left_out = tallied.left_out;
    if left_out.templates > 0 {
        let one = "template that was too rare to be remembered is not listed";
        let templates = amount(left_out.templates, one, "templates that were too rare to be remembered are not listed");
        remarks.push(format!("{templates} ({})", amount(left_out.lines, "line", "lines")));
    }
    remarks
}

#[derive(Serialize)]
struct Row<'a> {
    template_id: String,
    template: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<Level>,
    count: u64,
    lines: u64,
    share: f64,
    first: String,
    last: String,
    samples: Vec<Sample>,
    slots: Vec<Slot<'a>>,
}

#[derive(Serialize)]
struct Sample {
    time: String,
    text: String,
}

#[derive(Serialize)]
struct Slot<'a> {
    position: u16,
    kind: SlotKind,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    distinct: u64,
    values: Vec<Value<'a>>,
}

#[derive(Serialize)]
struct Value<'a> {
    value: Cow<'a, str>,
    count: u64,
}

/// Values that are shown of a slot.
const VALUES: usize = 10;

impl<'a> Row<'a> {
    fn new(template: &'a Summary, all: u64) -> Self {
        let value = |value: logwarden_templates::SlotValue<'a>| Value { value: value.value, count: value.count };
        let sample = |sample: logwarden_templates::Sample| Sample {
            time: sample.time.to_string(),
            text: String::from_utf8_lossy(&sample.text).into_owned(),
        };
        Self {
            template_id: template.root.to_string(),
            template: &template.text,
            level: template.level,
            count: template.count,
            lines: template.lines,
            share: share(template, all),
            first: template.first.to_string(),
            last: template.last.to_string(),
            samples: template.samples.iter().map(sample).collect(),
            slots: template
                .slots
                .iter()
                .map(|slot| Slot {
                    position: slot.position,
                    kind: slot.kind,
                    key: &slot.key,
                    distinct: slot.distinct,
                    values: slot.values.iter().take(VALUES).map(value).collect(),
                })
                .collect(),
        }
    }
}

fn shown(tallied: &Tallied, top: Option<usize>) -> &[Summary] {
    &tallied.templates[..top.unwrap_or(usize::MAX).min(tallied.templates.len())]
}

fn all(tallied: &Tallied) -> u64 {
    tallied.templates.iter().map(|template| template.lines).sum()
}

fn share(template: &Summary, all: u64) -> f64 {
    template.lines as f64 / all.max(1) as f64
}

/// The table for people; `columns` is the width of the window, if somebody looks.
fn table(tallied: &Tallied, top: Option<usize>, columns: Option<usize>, color: bool) -> String {
    let paint = Paint { color };
    let narrow = columns.is_some_and(|columns| columns < NARROW);
    // In front of the template: count, share, from when to when.
    let room = match columns {
        None => 2_000,
        Some(columns) if narrow => columns.saturating_sub(3).max(10),
        Some(columns) => columns - 57,
    };
    let mut text = String::new();
    let head = format!("{:>10}  {:>6}  {:<35}", "count", "share", "first – last (UTC)");
    let head = if narrow { head.trim_end().to_owned() } else { format!("{head}  template") };
    let _ = writeln!(text, "{}", paint.with(&head, &Style::new().bold()));
    let total = all(tallied);
    for template in shown(tallied, top) {
        let when = format!("{:<35}", span(template.first, template.last));
        let facts = format!("{:>10}  {:>5.1}%  ", grouped(template.count), share(template, total) * 100.0);
        let what = paint.template(Clean::log_line(&template.text).elided(room).as_str(), template.level);
        let when = if narrow { when.trim_end() } else { &when };
        let between = if narrow { "\n   " } else { "  " };
        let _ = writeln!(text, "{facts}{}{between}{what}", paint.with(when, &Style::new().dim()));
    }
    let n = tallied.templates.len();
    let hidden = n - shown(tallied, top).len();
    let more = if hidden > 0 { format!(" ({} not shown)", grouped(hidden as u64)) } else { String::new() };
    let _ = writeln!(
        text,
        "\n{} in {}{more}",
        amount(tallied.counts.read, "line", "lines"),
        amount(n as u64, "template", "templates")
    );
    text
}

/// `2026-11-21 04:00 – 05:12`
fn span(first: Timestamp, last: Timestamp) -> String {
    let minute = |time: Timestamp| {
        let text = time.to_string().replace('T', " ");
        text.get(..16).unwrap_or(&text).to_owned()
    };
    let (first, last) = (minute(first), minute(last));
    match (first.split_once(' '), last.split_once(' ')) {
        _ if first == last => first,
        (Some((day, _)), Some((same, time))) if day == same => format!("{first} – {time}"),
        _ => format!("{first} – {last}"),
    }
}

/// Colours, where somebody looks.
struct Paint {
    color: bool,
}

impl Paint {
    fn with(&self, text: &str, style: &Style) -> String {
        if !self.color {
            return text.to_owned();
        }
        style.clone().force_styling(true).apply_to(text).to_string()
    }

    /// Constant words by level, variables apart from them.
    fn template(&self, text: &str, level: Option<Level>) -> String {
        let words = match level {
            Some(level) if level >= Level::Error => Style::new().red(),
            Some(level) if level >= Level::Warn => Style::new().yellow(),
            _ => Style::new(),
        };
        let (mut painted, mut rest) = (String::new(), text);
        while let Some((from, to)) = rest.find("<*").and_then(|from| Some((from, from + rest[from..].find('>')? + 1))) {
            painted += &self.with(&rest[..from], &words);
            painted += &self.with(&rest[from..to], &Style::new().cyan());
            rest = &rest[to..];
        }
        painted + &self.with(rest, &words)
    }
}

/// One row for each line.
fn csv(tallied: &Tallied, top: Option<usize>, out: &mut dyn io::Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    writeln!(out, "line_no,template_id,template")?;
    let names: Vec<String> = shown(tallied, top)
        .iter()
        .map(|template| format!("{},\"{}\"", template.root, template.text.replace('"', "\"\"")))
        .collect();
    for (number, at) in (1_u64..).zip(&tallied.lines) {
        if let Some(name) = at.and_then(|at| names.get(at as usize)) {
            writeln!(out, "{number},{name}")?;
        }
    }
    out.flush()
}

/// One object for each template.
fn json(tallied: &Tallied, top: Option<usize>, out: &mut dyn io::Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    let total = all(tallied);
    for template in shown(tallied, top) {
        serde_json::to_writer(&mut out, &Row::new(template, total))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A line and its neighbours, kept while reading.
struct Around {
    wanted: u64,
    window: RangeInclusive<u64>,
    read: u64,
    lines: Vec<(u64, Line)>,
}

#[derive(Serialize)]
struct AroundRow<'a> {
    line_no: u64,
    line: String,
    before: Vec<Neighbour>,
    after: Vec<Neighbour>,
    #[serde(flatten)]
    template: Row<'a>,
}

#[derive(Serialize)]
struct Neighbour {
    line_no: u64,
    line: String,
}

impl Around {
    fn new(wanted: NonZeroU64) -> Self {
        let wanted = wanted.get();
        Self {
            wanted,
            window: wanted.saturating_sub(AROUND)..=wanted.saturating_add(AROUND),
            read: 0,
            lines: Vec::new(),
        }
    }

    fn look(&mut self, page: &[Line]) {
        for line in page {
            self.read += 1;
            if self.window.contains(&self.read) {
                self.lines.push((self.read, line.clone()));
            }
        }
    }

    fn show(&self, tallied: &Tallied, format: TableFormat) -> Result<String, Failure> {
        let at = self.lines.iter().position(|(number, _)| *number == self.wanted);
        let template = usize::try_from(self.wanted - 1).ok().and_then(|at| tallied.lines.get(at).copied().flatten());
        let template = template.and_then(|template| tallied.templates.get(template as usize));
        let (Some(at), Some(template)) = (at, template) else {
            let read = amount(self.read, "line", "lines");
            return Err(Failure::usage(format!("there is no line {}: the input has {read}", grouped(self.wanted))));
        };
        let (number, line) = &self.lines[at];
        let lines: Vec<Line> = self.lines.iter().map(|(_, line)| line.clone()).collect();
        let (before, after) = neighbours(&lines, at, AROUND as usize, AROUND as usize);
        let text = |line: &Line| String::from_utf8_lossy(&line.text).into_owned();
        let neighbour = |(line_no, line): (u64, &Line)| Neighbour { line_no, line: text(line) };
        let first = number - before.len() as u64;
        let row = AroundRow {
            line_no: *number,
            line: text(line),
            before: (first..).zip(before).map(neighbour).collect(),
            after: (number + 1..).zip(after).map(neighbour).collect(),
            template: Row::new(template, all(tallied)),
        };
        match format {
            TableFormat::Json => Ok(serde_json::to_string(&row).unwrap_or_default() + "\n"),
            TableFormat::Csv => {
                Err(Failure::usage("--around has no CSV form").hint("leave out --format, or take json"))
            }
            TableFormat::Text => Ok(row.for_people()),
        }
    }
}

impl AroundRow<'_> {
    fn for_people(&self) -> String {
        let here = Neighbour { line_no: self.line_no, line: self.line.clone() };
        let mut text = format!(
            "{} like it, {}: {}\n\n",
            amount(self.template.count, "event", "events"),
            self.template.template_id,
            Clean::log_line(self.template.template).as_str()
        );
        for line in self.before.iter().chain([&here]).chain(&self.after) {
            let mark = if line.line_no == self.line_no { '>' } else { ' ' };
            let _ = writeln!(text, "{mark}{:>9}  {}", grouped(line.line_no), Clean::log_line(&line.line).as_str());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use logwarden_templates::{Clock, Record, Stream};

    use super::*;

    const LOG: &str = "\
Nov 21 03:10:00 web-1 sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2
Nov 21 03:10:02 web-1 sshd[812]: Failed password for bob from 203.0.113.7 port 4712 ssh2
Nov 21 03:59:05 web-1 sshd[815]: Failed password for alice from 198.51.100.9 port 4713 ssh2
<11>Nov 20 23:59:09 web-1 backup: copy to tape failed: no space left on device
<12>Nov 21 03:20:00 web-1 app: disk /srv is at 91 %
{\"time\":\"2026-11-21T03:30:00Z\",\"level\":\"info\",\"msg\":\"job \\\"nightly\\\" done\",\"took_ms\":12}";

    fn tallied(log: &str) -> Tallied {
        let stream = Arc::new(Stream::new(BTreeMap::new()));
        let mut tally = Tally::new(Miner::new(Config::default()), true);
        tally.page(log.lines().map(|text| Record {
            stream: &stream,
            time: Timestamp::from_secs(1_795_233_600),
            clock: Clock::Arrival,
            text: text.as_bytes(),
            tags: 0,
        }));
        tally.finish()
    }

    #[test]
    fn a_table_for_people() {
        insta::assert_snapshot!(table(&tallied(LOG), None, Some(140), false), @r#"
             count   share  first – last (UTC)                   template
                 3   50.0%  2026-11-21 03:10 – 03:59             Failed password for <*:user> from <*:ip> port <*:num> ssh2
                 1   16.7%  2026-11-20 23:59                     copy to tape failed: no space left on device
                 1   16.7%  2026-11-21 03:20                     disk <*:path> is at <*:num> %
                 1   16.7%  2026-11-21 03:30                     job "nightly" done level=info took_ms=<*:num>

        6 lines in 4 templates
        "#);
    }

    #[test]
    fn a_narrow_table() {
        insta::assert_snapshot!(table(&tallied(LOG), Some(2), Some(60), false), @r"
             count   share  first – last (UTC)
                 3   50.0%  2026-11-21 03:10 – 03:59
           Failed password for <*:user> from <* … port <*:num> ssh2
                 1   16.7%  2026-11-20 23:59
           copy to tape failed: no space left on device

        6 lines in 4 templates (2 not shown)
        ");
    }

    #[test]
    fn levels_and_variables_have_colours() {
        insta::assert_snapshot!(table(&tallied(LOG), Some(3), None, true).replace('\u{1b}', "␛"), @r"
        ␛[1m     count   share  first – last (UTC)                   template␛[0m
                 3   50.0%  ␛[2m2026-11-21 03:10 – 03:59           ␛[0m  Failed password for ␛[36m<*:user>␛[0m from ␛[36m<*:ip>␛[0m port ␛[36m<*:num>␛[0m ssh2
                 1   16.7%  ␛[2m2026-11-20 23:59                   ␛[0m  ␛[31mcopy to tape failed: no space left on device␛[0m
                 1   16.7%  ␛[2m2026-11-21 03:20                   ␛[0m  ␛[33mdisk ␛[0m␛[36m<*:path>␛[0m␛[33m is at ␛[0m␛[36m<*:num>␛[0m␛[33m %␛[0m

        6 lines in 4 templates (1 not shown)
        ");
    }

    #[test]
    fn no_window_is_too_narrow() {
        for columns in 0..120 {
            let text = table(&tallied(LOG), None, Some(columns), false);
            assert!(text.contains("6 lines in 4 templates"), "{text}");
            if columns >= 60 {
                let widest = text.lines().map(|line| line.chars().count()).max();
                assert!(widest <= Some(columns), "{columns}: {text}");
            }
        }
    }

    #[test]
    fn csv_has_a_row_for_every_line() {
        let mut out = Vec::new();
        csv(&tallied(LOG), None, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8_lossy(&out), @r#"
        line_no,template_id,template
        1,9249071e7f62d0ae9631174d38bfbec3,"Failed password for <*:user> from <*:ip> port <*:num> ssh2"
        2,9249071e7f62d0ae9631174d38bfbec3,"Failed password for <*:user> from <*:ip> port <*:num> ssh2"
        3,9249071e7f62d0ae9631174d38bfbec3,"Failed password for <*:user> from <*:ip> port <*:num> ssh2"
        4,b0aa0bb64afe88933b4652ad2b9f63ab,"copy to tape failed: no space left on device"
        5,3573fd40485a140ccf566d8cdb55d436,"disk <*:path> is at <*:num> %"
        6,afc3a2622d362dc9dd8fd5d6893d70b5,"job ""nightly"" done level=info took_ms=<*:num>"
        "#);
    }

    #[test]
    fn json_tells_all_that_a_template_knows() {
        let mut out = Vec::new();
        json(&tallied(LOG), Some(1), &mut out).unwrap();
        let row: serde_json::Value = serde_json::from_slice(&out).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&row).unwrap(), @r#"
        {
          "count": 3,
          "first": "2026-11-21T03:10:00Z",
          "last": "2026-11-21T03:59:05Z",
          "lines": 3,
          "samples": [
            {
              "text": "Nov 21 03:10:00 web-1 sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2",
              "time": "2026-11-21T03:10:00Z"
            },
            {
              "text": "Nov 21 03:10:02 web-1 sshd[812]: Failed password for bob from 203.0.113.7 port 4712 ssh2",
              "time": "2026-11-21T03:10:02Z"
            },
            {
              "text": "Nov 21 03:59:05 web-1 sshd[815]: Failed password for alice from 198.51.100.9 port 4713 ssh2",
              "time": "2026-11-21T03:59:05Z"
            }
          ],
          "share": 0.5,
          "slots": [
            {
              "distinct": 3,
              "kind": "user",
              "position": 0,
              "values": [
                {
                  "count": 1,
                  "value": "alice"
                },
                {
                  "count": 1,
                  "value": "bob"
                },
                {
                  "count": 1,
                  "value": "root"
                }
              ]
            },
            {
              "distinct": 2,
              "kind": "ip",
              "position": 1,
              "values": [
                {
                  "count": 2,
                  "value": "203.0.113.7"
                },
                {
                  "count": 1,
                  "value": "198.51.100.9"
                }
              ]
            },
            {
              "distinct": 3,
              "kind": "num",
              "position": 2,
              "values": [
                {
                  "count": 1,
                  "value": "4711"
                },
                {
                  "count": 1,
                  "value": "4712"
                },
                {
                  "count": 1,
                  "value": "4713"
                }
              ]
            }
          ],
          "template": "Failed password for <*:user> from <*:ip> port <*:num> ssh2",
          "template_id": "9249071e7f62d0ae9631174d38bfbec3"
        }
        "#);
    }

    #[test]
    fn a_line_is_shown_among_its_neighbours() {
        let stream = Arc::new(Stream::new(BTreeMap::new()));
        let line = |text: &str| Line {
            id: logwarden_templates::LineId::of(&[text.as_bytes()]),
            time: Timestamp::from_secs(1_795_233_600),
            clock: Clock::Arrival,
            stream: stream.clone(),
            text: text.as_bytes().to_vec(),
            tags: 1,
        };
        let lines: Vec<Line> = LOG.lines().map(line).collect();
        let at = |number| {
            let mut around = Around::new(NonZeroU64::new(number).unwrap());
            around.look(&lines[..3]);
            around.look(&lines[3..]);
            around.show(&tallied(LOG), TableFormat::Text)
        };
        insta::assert_snapshot!(at(2).unwrap(), @r#"
        3 events like it, 9249071e7f62d0ae9631174d38bfbec3: Failed password for <*:user> from <*:ip> port <*:num> ssh2

                 1  Nov 21 03:10:00 web-1 sshd[811]: Failed password for root from 203.0.113.7 port 4711 ssh2
        >        2  Nov 21 03:10:02 web-1 sshd[812]: Failed password for bob from 203.0.113.7 port 4712 ssh2
                 3  Nov 21 03:59:05 web-1 sshd[815]: Failed password for alice from 198.51.100.9 port 4713 ssh2
                 4  <11>Nov 20 23:59:09 web-1 backup: copy to tape failed: no space left on device
                 5  <12>Nov 21 03:20:00 web-1 app: disk /srv is at 91 %
                 6  {"time":"2026-11-21T03:30:00Z","level":"info","msg":"job \"nightly\" done","took_ms":12}
        "#);
        assert_eq!(at(7).unwrap_err().code(), 2);
    }
}
