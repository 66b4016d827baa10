//! The way of hostile text into a message, one type per step.
//!
//! ```text
//! Untrusted ──clean──▶ Clean ──escape and fit──▶ Safe<C>      C: Plain, Data, Code, DiscordMarkdown, Mrkdwn
//! ```
//!
//! [`Clean`] has no control, bidirectional or invisible characters left, but may hold any markup. [`Safe`] is inert where
//! `C` is read, and within a budget of UTF-16 units *after* escaping (never fewer than code points, so right whichever a
//! platform counts). There is no way back from a later step to an earlier one, so text cannot be escaped twice, and the
//! payloads take only [`Safe`], so escaping cannot be forgotten:
//!
//! ```compile_fail
//! # use logwarden_notifiers::text::{Mrkdwn, Safe};
//! let title: Safe<Mrkdwn> = String::from("<!channel>").into();
//! ```
//!
//! ```compile_fail
//! # use logwarden_notifiers::text::{Clean, DiscordMarkdown, Mrkdwn, Safe};
//! # let escaped = Safe::<DiscordMarkdown>::of(&Clean::line("x"), 9);
//! let mut text = Safe::<Mrkdwn>::new();
//! text.push(&escaped); // escaped for another platform
//! ```

use std::{fmt, marker::PhantomData};

use serde::{Serialize, Serializer};
use unicode_segmentation::UnicodeSegmentation;

pub use crate::clean::{CUT, Clean};
use crate::{
    clean::{count, take},
    words::Words,
};

/// A grapheme longer than this is a joke at our expense, not a letter.
const LONGEST_GRAPHEME: usize = 32;
/// A word with `://` in it is shown as code, and never longer than this.
const LONGEST_ADDRESS: usize = 120;

/// A place that text can be inert in.
pub trait Context: private::Sealed {
    /// Appends a piece of clean text so that it means nothing there but itself.
    #[doc(hidden)]
    fn put(out: &mut String, piece: Piece<'_>);
}

/// A piece of clean text that is never cut.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// What a reader takes for one character.
    Grapheme(&'a str),
    /// A word with `://` in it.
    Address(&'a str),
}

mod private {
    pub trait Sealed {}
}

macro_rules! contexts {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {}
        impl private::Sealed for $name {}
    )*};
}

contexts! {
    /// Discord's markdown, in descriptions, titles and field values.
    DiscordMarkdown
    /// The inside of a code block of Discord's.
    Code
    /// Slack's markup.
    Mrkdwn
    /// Where markup is not read but links or entities might be: Slack's `plain_text`, Discord's footer.
    Plain
    /// Where text is data: Slack's rich text, JSON, a terminal.
    Data
}

impl Context for DiscordMarkdown {
    fn put(out: &mut String, piece: Piece<'_>) {
        match piece {
            Piece::Grapheme(grapheme) => {
                for c in grapheme.chars() {
                    let starts_line = out.is_empty() || out.ends_with('\n');
                    if matches!(c, '\\' | '*' | '_' | '~' | '|' | '[' | ']' | '<' | '@' | '`')
                        || (starts_line && matches!(c, '#' | '>' | '-' | '+'))
                    {
                        out.push('\\');
                    }
                    out.push(c);
                }
            }
            Piece::Address(word) => put_code(out, word),
        }
    }
}

/// Inline code: nothing is read in it but its end.
fn put_code(out: &mut String, word: &str) {
    out.push('`');
    out.extend(word.chars().map(|c| if c == '`' { '\'' } else { c }));
    out.push('`');
}

impl Context for Code {
    fn put(out: &mut String, piece: Piece<'_>) {
        let (Piece::Grapheme(text) | Piece::Address(text)) = piece;
        for c in text.chars() {
            // There is no escape for a backtick in a fence. A zero-width space keeps two of them apart.
            if c == '`' && (out.is_empty() || out.ends_with(['`', '\n'])) {
                out.push('\u{200b}');
            }
            out.push(c);
        }
    }
}

impl Context for Mrkdwn {
    fn put(out: &mut String, piece: Piece<'_>) {
        match piece {
            Piece::Grapheme(grapheme) => {
                for c in grapheme.chars() {
                    match c {
                        // These have no escape: look-alikes.
                        '*' => out.push('∗'),
                        '~' => out.push('∼'),
                        '`' => out.push('\''),
                        '_' if !out.ends_with(char::is_alphanumeric) => out.push('＿'),
                        c => put_entity(out, c),
                    }
                }
            }
            Piece::Address(word) => {
                out.push('`');
                word.chars().for_each(|c| put_entity(out, if c == '`' { '\'' } else { c }));
                out.push('`');
            }
        }
    }
}

fn put_entity(out: &mut String, c: char) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        c => out.push(c),
    }
}

impl Context for Plain {
    fn put(out: &mut String, piece: Piece<'_>) {
        let put = |out: &mut String, text: &str| {
            out.extend(text.chars().map(|c| match c {
                '<' => '‹',
                '>' => '›',
                c => c,
            }));
        };
        match piece {
            Piece::Grapheme(text) => put(out, text),
            Piece::Address(word) => put(out, &word.replace("://", "[:]//")),
        }
    }
}

impl Context for Data {
    fn put(out: &mut String, piece: Piece<'_>) {
        let (Piece::Grapheme(text) | Piece::Address(text)) = piece;
        out.push_str(text);
    }
}

/// Text that means nothing but itself where `C` is read.
pub struct Safe<C> {
    text: String,
    units: usize,
    cuts: u32,
    context: PhantomData<fn() -> C>,
}

impl<C: Context> Safe<C> {
    /// No text.
    pub fn new() -> Self {
        Self { text: String::new(), units: 0, cuts: 0, context: PhantomData }
    }

    /// `text`, escaped, in at most `units` UTF-16 units.
    pub fn of(text: &Clean, units: usize) -> Self {
        let mut safe = Self::new();
        safe.text(text, units);
        safe
    }

    /// Appends our own words, markup included.
    pub fn ours(&mut self, literal: &'static str) -> &mut Self {
        self.append(literal);
        self
    }

    /// Appends our own words made of numbers, times and names.
    pub(crate) fn words(&mut self, words: &Words) -> &mut Self {
        self.append(words.as_str());
        self
    }

    /// Appends `text`, escaped, in at most `units` UTF-16 units; what does not fit is replaced by [`CUT`].
    pub fn text(&mut self, text: &Clean, units: usize) -> &mut Self {
        self.cuts += text.cuts();
        let before = self.units;
        let mut mark_fits = (self.text.len(), self.units);
        for piece in Pieces::of(text.as_str()) {
            let from = self.text.len();
            match piece {
                Piece::Grapheme(long) if count(long) > LONGEST_GRAPHEME => {
                    let first = long.chars().next().map_or(0, char::len_utf8);
                    C::put(&mut self.text, Piece::Grapheme(&long[..first]));
                    self.text.push('\u{fffd}');
                    self.cuts += 1;
                }
                Piece::Address(long) if count(long) > LONGEST_ADDRESS => {
                    let shown = &long[..take(long.graphemes(true), LONGEST_ADDRESS - 1)];
                    C::put(&mut self.text, Piece::Address(&format!("{shown}{CUT}")));
                    self.cuts += 1;
                }
                piece => C::put(&mut self.text, piece),
            }
            self.units += count(&self.text[from..]);
            let used = self.units - before;
            if used > units {
                self.text.truncate(mark_fits.0);
                self.units = mark_fits.1;
                self.cuts += 1;
                if self.units - before < units {
                    self.text.push(CUT);
                    self.units += 1;
                }
                return self;
            }
            if used < units {
                mark_fits = (self.text.len(), self.units);
            }
        }
        self
    }

    /// Appends what is already safe here.
    pub fn push(&mut self, other: &Self) -> &mut Self {
        self.append(&other.text);
        self.cuts += other.cuts;
        self
    }

    fn append(&mut self, text: &str) {
        self.units += count(text);
        self.text.push_str(text);
    }

    /// The text as the platform gets it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its length in UTF-16 units.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// How often something was cut away.
    pub fn cuts(&self) -> u32 {
        self.cuts
    }

    /// Counts something that was left out before it became text.
    pub(crate) fn cut(&mut self) {
        self.cuts += 1;
    }
}

impl Safe<DiscordMarkdown> {
    /// Appends `text` as inline code.
    pub fn code(&mut self, text: &Clean, units: usize) -> &mut Self {
        let fitted = Safe::<Data>::of(text, units.saturating_sub(2));
        self.cuts += fitted.cuts;
        if !fitted.is_empty() {
            let mut code = String::new();
            put_code(&mut code, &fitted.text);
            self.append(&code);
        }
        self
    }

    /// Appends `code` in a block of its own.
    pub fn fence(&mut self, code: &Safe<Code>) -> &mut Self {
        self.append("```\n");
        self.append(&code.text);
        self.append("\n```");
        self.cuts += code.cuts;
        self
    }

    /// Appends a link that we built.
    pub(crate) fn link(&mut self, label: &'static str, link: &Link) -> &mut Self {
        self.append(&format!("[{label}]({})", link.0));
        self
    }
}

impl Safe<Code> {
    /// Appends a line, within `units`.
    pub fn line(&mut self, text: &Clean, units: usize) -> &mut Self {
        if !self.is_empty() {
            self.append("\n");
        }
        self.text(text, units.saturating_sub(2));
        if self.text.ends_with('`') {
            self.append("\u{200b}");
        }
        self
    }
}

impl Safe<Mrkdwn> {
    /// Appends `text` as inline code, within `units`.
    pub fn code(&mut self, text: &Clean, units: usize) -> &mut Self {
        if text.is_empty() {
            return self;
        }
        let mut code = Self::new();
        // Within backticks only entities are read; the look-alikes of running text would falsify names.
        for piece in Pieces::of(text.as_str()) {
            let (Piece::Grapheme(part) | Piece::Address(part)) = piece;
            let mut escaped = String::new();
            part.chars().for_each(|c| put_entity(&mut escaped, if c == '`' { '\'' } else { c }));
            if code.units + count(&escaped) + 3 > units {
                code.append("…");
                code.cuts += 1;
                break;
            }
            code.append(&escaped);
        }
        self.append("`");
        self.push(&code);
        self.append("`");
        self
    }
}

impl Safe<Mrkdwn> {
    /// Appends a link that we built.
    pub(crate) fn link(&mut self, label: &'static str, link: &Link) -> &mut Self {
        self.append(&format!("<{}|{label}>", link.0.replace('&', "&amp;")));
        self
    }
}

impl<C: Context> Default for Safe<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Clone for Safe<C> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), units: self.units, cuts: self.cuts, context: PhantomData }
    }
}

impl<C> fmt::Debug for Safe<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl<C> Serialize for Safe<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Takes clean text apart.
struct Pieces<'a> {
    rest: &'a str,
    word_starts: bool,
}

impl<'a> Pieces<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: text, word_starts: true }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if std::mem::take(&mut self.word_starts) {
            let word = self.rest.split(' ').next()?;
            if word.contains("://") {
                self.rest = &self.rest[word.len()..];
                return Some(Piece::Address(word));
            }
        }
        let grapheme = self.rest.graphemes(true).next()?;
        self.rest = &self.rest[grapheme.len()..];
        // A space may carry a combining mark.
        self.word_starts = grapheme.contains(' ');
        Some(Piece::Grapheme(grapheme))
    }
}

/// A link that we built: `http` or `https`, nothing in it that ends a link on any platform, not too long for any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Link(String);

impl Link {
    /// Longer ones are dropped: Discord has been seen to refuse addresses near 1,700 characters.
    const LONGEST: usize = 1_500;

    pub(crate) fn new(link: &str) -> Option<Self> {
        let url = url::Url::parse(link).ok()?;
        let wanted = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
        let text: String = url
            .as_str()
            .chars()
            .map(|c| match c {
                '(' => "%28".into(),
                ')' => "%29".into(),
                '|' => "%7C".into(),
                '`' => "%60".into(),
                '*' => "%2A".into(),
                c => String::from(c),
            })
            .collect();
        (wanted && text.len() <= Self::LONGEST && !text.contains(['<', '>', '"', ' '])).then_some(Self(text))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markdown(raw: &str) -> String {
        Safe::<DiscordMarkdown>::of(&Clean::line(raw), 100).as_str().to_owned()
    }

    #[test]
    fn addresses_become_code_wherever_a_word_begins() {
        assert_eq!(markdown("see https://a.example/x`y now"), "see `https://a.example/x'y` now");
        assert_eq!(markdown("a \u{300}<https://a.example>"), "a \u{300}`<https://a.example>`");
        assert_eq!(markdown("\u{600} https://a.example"), "\u{600} `https://a.example`");
    }

    #[test]
    fn a_cut_never_splits_an_escape_a_grapheme_or_an_address() {
        let clean = Clean::line("a*é👩‍👩 https://evil.example/long b");
        for units in 0..60 {
            let fitted = Safe::<DiscordMarkdown>::of(&clean, units);
            assert!(fitted.units() <= units, "{units}: {fitted:?}");
            assert_eq!(fitted.as_str().matches('`').count() % 2, 0, "{fitted:?}");
            assert!(!fitted.as_str().ends_with('\\'), "{fitted:?}");
            assert!(units == 0 || fitted.cuts() == 0 || fitted.as_str().ends_with(CUT), "{fitted:?}");
        }
    }
}
