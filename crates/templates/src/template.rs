//! Templates as text.
//!
//! Three forms of one thing: the *stored* text of a leaf (every variable with the kind its first line had), from which
//! its pieces can be read again; the *canonical* text that ids are made of (variables are `<*>`, neighbours are one); and
//! the *shown* text (as the canonical one, with kinds).

use std::sync::{Arc, LazyLock};

use crate::{
    SlotKind, lexicon,
    scan::{Masked, What},
};

/// Most variables have no key; ten thousand rows share this one.
static NO_KEY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());

/// A template's texts and variables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rendered {
    pub(crate) canonical: String,
    pub(crate) shown: String,
    pub(crate) variables: Vec<Variable>,
}

/// A variable of a template.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    /// Which piece.
    pub(crate) piece: usize,
    /// Its number in the shown text: neighbours share one.
    pub(crate) position: u16,
    pub(crate) kind: SlotKind,
    /// The word before `=`.
    pub(crate) key: Arc<str>,
}

/// The stored text of a leaf.
pub(crate) fn stored(masked: &Masked, text: &[u8]) -> String {
    let source = masked.source(text);
    let mut out = Vec::with_capacity(source.len().min(512));
    let mut values = masked.values.iter();
    for piece in &masked.pieces {
        Masked::write_sep(source, piece, &mut out);
        match piece.what {
            What::Var => {
                let kind = values.next().map_or(SlotKind::Any, |value| value.kind);
                // A word that varies is promotion's to say, and free text is the coarse form's.
                let kind = if matches!(kind, SlotKind::Word | SlotKind::Text) { SlotKind::Any } else { kind };
                placeholder(kind, &mut out);
            }
            _ => out.extend_from_slice(Masked::word(source, piece)),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The stored text with the words at the positions of `mask` masked.
pub(crate) fn mask_words(masked: &Masked, text: &[u8], mask: u128) -> String {
    let source = masked.source(text);
    let mut out = Vec::new();
    let mut values = masked.values.iter();
    for (at, piece) in masked.pieces.iter().enumerate() {
        Masked::write_sep(source, piece, &mut out);
        match piece.what {
            What::Var => placeholder(values.next().map_or(SlotKind::Any, |value| value.kind), &mut out),
            _ if at < 128 && mask >> at & 1 == 1 => placeholder(SlotKind::Word, &mut out),
            _ => out.extend_from_slice(Masked::word(source, piece)),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn placeholder(kind: SlotKind, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<*");
    if kind != SlotKind::Any {
        out.push(b':');
        out.extend_from_slice(kind.as_str().as_bytes());
    }
    out.push(b'>');
}

/// The variables of a leaf's stored `text`, with the words at the positions of `mask` as well. `kinds` are the pieces' kinds
/// where they are known better than from this text.
pub(crate) fn variables(masked: &Masked, text: &[u8], mask: u128, kinds: &[SlotKind]) -> Vec<Variable> {
    let source = masked.source(text);
    let mut variables: Vec<Variable> = Vec::new();
    let mut values = masked.values.iter();
    let mut position = 0_u16;
    let is_var =
        |at: usize| at < 128 && mask >> at & 1 == 1 || masked.pieces.get(at).is_some_and(|p| p.what == What::Var);
    let word = |at: Option<usize>| match at.and_then(|at| masked.pieces.get(at).map(|piece| (at, piece))) {
        Some((at, piece)) if !is_var(at) => Masked::word(source, piece),
        _ => b"",
    };
    for (at, piece) in masked.pieces.iter().enumerate() {
        let value = if piece.what == What::Var { values.next().map(|value| value.kind) } else { None };
        if !is_var(at) {
            continue;
        }
        let assigned = Masked::assigns(source, piece);
        let kind = kinds.get(at).copied().or(value).unwrap_or(SlotKind::Word);
        let before = [word(at.checked_sub(1)), word(at.checked_sub(2))];
        let kind = lexicon::role(before, assigned, word(Some(at + 1)), kind);
        let key = if assigned { String::from_utf8_lossy(before[0]).as_ref().into() } else { NO_KEY.clone() };
        if let Some(last) = variables.last()
            && (last.piece + 1 < at || !Masked::joins(source, piece))
        {
            position = position.saturating_add(1);
        }
        variables.push(Variable { piece: at, position, kind, key });
    }
    variables
}

/// The canonical and the shown text of a leaf, and its [`variables`].
pub(crate) fn render(masked: &Masked, text: &[u8], mask: u128, kinds: &[SlotKind]) -> Rendered {
    let source = masked.source(text);
    let variables = variables(masked, text, mask, kinds);
    let (mut canonical, mut shown) = (Vec::with_capacity(source.len()), Vec::with_capacity(source.len()));
    let mut rest = variables.iter().peekable();
    // The last variable: its number, its kind, and where it is in the shown text.
    let mut last: Option<(u16, SlotKind, usize)> = None;
    for (at, piece) in masked.pieces.iter().enumerate() {
        let variable = rest.next_if(|variable| variable.piece == at);
        match (variable, last) {
            (Some(variable), Some((position, kind, start))) if position == variable.position => {
                let kind = join(kind, variable.kind);
                shown.truncate(start);
                placeholder(kind, &mut shown);
                last = Some((position, kind, start));
            }
            (Some(variable), _) => {
                Masked::write_sep(source, piece, &mut canonical);
                Masked::write_sep(source, piece, &mut shown);
                last = Some((variable.position, variable.kind, shown.len()));
                placeholder(SlotKind::Any, &mut canonical);
                placeholder(variable.kind, &mut shown);
            }
            (None, _) => {
                for out in [&mut canonical, &mut shown] {
                    Masked::write_sep(source, piece, out);
                    out.extend_from_slice(Masked::word(source, piece));
                }
            }
        }
    }
    let text =
        |bytes| String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Rendered { canonical: text(canonical), shown: text(shown), variables }
}

/// The kind of a slot that holds values of both kinds: an address or a name stays one.
pub(crate) fn join(a: SlotKind, b: SlotKind) -> SlotKind {
    let (first, second) = (lexicon::entity_rank(a), lexicon::entity_rank(b));
    match () {
        () if a == b => a,
        () if first.max(second) >= 3 => {
            if first >= second {
                a
            } else {
                b
            }
        }
        () => SlotKind::Any,
    }
}
