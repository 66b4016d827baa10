//! Reads a TOML document key by key, and notes every mistake instead of stopping at the first.
//!
//! The environment lies over the file: a key that names a variable takes its value from there when it is set and not
//! empty.

use std::{cell::RefCell, collections::BTreeSet, ops::Range, rc::Rc};

use logwarden_detectors::nearest;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::mistake::Mistake;

/// The environment, as a lookup.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What all tables of a document share.
pub(crate) struct Notes<'a> {
    file: String,
    text: &'a str,
    env: Lookup<'a>,
    /// With where they are in the file, to tell them in its order.
    mistakes: RefCell<Vec<(usize, Mistake)>>,
    /// The variables that are set, of those that were asked for.
    set: RefCell<BTreeSet<String>>,
    /// Every key that was asked for, with `[]` for elements of lists: a test compares it with the reference.
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(file: &str, text: &'a str, env: Lookup<'a>) -> Rc<Self> {
        Rc::new(Self {
            file: file.to_owned(),
            text,
            env,
            mistakes: RefCell::default(),
            set: RefCell::default(),
            asked: RefCell::default(),
        })
    }

    /// The file's text.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// Notes a mistake at a place in the file.
    pub(crate) fn at(&self, span: Range<usize>, key: &str, reason: impl Into<String>, hint: Option<String>) {
        let line = 1 + self.text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count();
        self.note(span.start, format!("{}:{line}", self.file), key, reason, hint);
    }

    /// Notes a mistake in the environment.
    pub(crate) fn in_env(&self, variable: &str, key: &str, reason: impl Into<String>, hint: Option<String>) {
        self.note(usize::MAX, format!("environment variable {variable}"), key, reason, hint);
    }

    fn note(&self, position: usize, place: String, key: &str, reason: impl Into<String>, hint: Option<String>) {
        let mistake = Mistake { place, key: key.to_owned(), reason: reason.into(), hint };
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.iter().all(|(_, other)| *other != mistake) {
            mistakes.push((position, mistake));
        }
    }

    /// How many mistakes there are so far.
    pub(crate) fn count(&self) -> usize {
        self.mistakes.borrow().len()
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let value = (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())?;
        self.set.borrow_mut().insert(name.to_owned());
        Some(value)
    }

    /// The variables that lie over the file.
    pub(crate) fn variables(&self) -> Vec<String> {
        // Which one systemd sets says only where credentials are.
        self.set.borrow().iter().filter(|name| *name != "CREDENTIALS_DIRECTORY").cloned().collect()
    }

    #[cfg(test)]
    pub(crate) fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    pub(crate) fn into_mistakes(self: Rc<Self>) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.take();
        mistakes.sort_by_key(|(position, _)| *position);
        mistakes.into_iter().map(|(_, mistake)| mistake).collect()
    }
}

/// A value with the place it came from.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) from: From,
}

#[derive(Clone, Debug)]
pub(crate) enum From {
    File(Range<usize>),
    Env(String),
}

/// A table of the document.
pub(crate) struct Table<'a> {
    path: String,
    span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<BTreeSet<String>>,
    pub(crate) notes: Rc<Notes<'a>>,
}

impl<'a> Table<'a> {
    pub(crate) fn root(table: &'a DeTable<'a>, notes: &Rc<Notes<'a>>) -> Self {
        Self { path: String::new(), span: 0..0, table: Some(table), asked: RefCell::default(), notes: notes.clone() }
    }

    /// The full path of a key here.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Where the table begins.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether the file has this table, with something in it.
    pub(crate) fn is_used(&self) -> bool {
        self.table.is_some_and(|table| !table.is_empty())
    }

    /// The value of a key that must not be here.
    pub(crate) fn forbidden(&self, name: &str) -> Option<Range<usize>> {
        let value = self.table.and_then(|table| table.get(name))?;
        self.asked.borrow_mut().insert(name.to_owned());
        Some(value.span())
    }

    fn get(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.notes.asked.borrow_mut().insert(self.pattern(name));
        self.table.and_then(|table| table.get(name))
    }

    /// The full path of a key here, the same for all elements of a list.
    fn pattern(&self, name: &str) -> String {
        let key = self.key(name);
        let mut pattern = String::new();
        let mut inside = false;
        for character in key.chars() {
            match character {
                '[' => inside = true,
                ']' => inside = false,
                _ if inside => continue,
                _ => {}
            }
            pattern.push(character);
        }
        pattern
    }

    fn wrong_type(&self, value: &Spanned<DeValue<'_>>, name: &str, wanted: &str) {
        self.wrong_type_with(value, name, wanted, None);
    }

    fn wrong_type_with(&self, value: &Spanned<DeValue<'_>>, name: &str, wanted: &str, hint: Option<String>) {
        let kind = value.get_ref().type_str();
        let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let reason = format!("must be {wanted}, not {article} {kind}");
        self.notes.at(value.span(), &self.key(name), reason, hint);
    }

    /// Notes that a value cannot be used.
    pub(crate) fn refuse<T>(&self, found: &Found<T>, name: &str, reason: impl Into<String>, hint: Option<String>) {
        match &found.from {
            From::File(span) => self.notes.at(span.clone(), &self.key(name), reason, hint),
            From::Env(variable) => self.notes.in_env(variable, &self.key(name), reason, hint),
        }
    }

    /// A text.
    pub(crate) fn string(&self, name: &str, variable: Option<&str>) -> Option<Found<String>> {
        let value = self.get(name);
        if let Some((variable, value)) = variable.and_then(|name| Some((name, self.notes.variable(name)?))) {
            return Some(Found { value, from: From::Env(variable.to_owned()) });
        }
        let value = value?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(value, name, "a text in quotes");
            return None;
        };
        Some(Found { value: text.to_owned(), from: From::File(value.span()) })
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&self, name: &str, variable: Option<&str>, bounds: Range<u64>) -> Option<Found<u64>> {
        let value = self.get(name);
        let wanted = format!("a whole number from {} to {}", bounds.start, bounds.end - 1);
        let found = match variable.and_then(|name| Some((name, self.notes.variable(name)?))) {
            Some((variable, text)) => Found { value: text.parse().ok(), from: From::Env(variable.to_owned()) },
            None => {
                let value = value?;
                let Some(number) = value.get_ref().as_integer() else {
                    self.wrong_type(value, name, &wanted);
                    return None;
                };
                let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
                Found { value: parsed, from: From::File(value.span()) }
            }
        };
        match found.value.filter(|value| bounds.contains(value)) {
            Some(value) => Some(Found { value, from: found.from }),
            None => {
                self.refuse(&found, name, format!("must be {wanted}"), None);
                None
            }
        }
    }

    /// Yes or no.
    pub(crate) fn boolean(&self, name: &str, variable: Option<&str>) -> Option<bool> {
        let value = self.get(name);
        if let Some((variable, text)) = variable.and_then(|name| Some((name, self.notes.variable(name)?))) {
            return match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Some(true),
                "0" | "false" | "no" | "off" => Some(false),
                _ => {
                    self.notes.in_env(variable, &self.key(name), "must be true or false", None);
                    None
                }
            };
        }
        let value = value?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(value, name, "true or false");
        }
        found
    }

    /// A list of texts.
    pub(crate) fn strings(&self, name: &str) -> Option<Vec<Found<String>>> {
        let value = self.get(name)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(value, name, "a list of texts");
            return None;
        };
        let mut found = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) => found.push(Found { value: text.to_owned(), from: From::File(item.span()) }),
                None => self.wrong_type(item, name, "a list of texts"),
            }
        }
        Some(found)
    }

    /// A text, or a list of them.
    pub(crate) fn texts(&self, name: &str) -> Vec<Found<String>> {
        match self.get(name) {
            Some(value) if value.get_ref().as_array().is_some() => self.strings(name).unwrap_or_default(),
            _ => self.string(name, None).into_iter().collect(),
        }
    }

    /// A table of texts.
    pub(crate) fn map(&self, name: &str) -> Vec<(String, Found<String>)> {
        let Some(value) = self.get(name) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(value, name, "a table of texts");
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, item) in table.iter() {
            match item.get_ref().as_str() {
                Some(text) => {
                    let value = Found { value: text.to_owned(), from: From::File(item.span()) };
                    found.push((key.get_ref().to_string(), value));
                }
                None => self.wrong_type(item, name, "a table of texts"),
            }
        }
        found
    }

    /// A table inside, empty when it is not there.
    pub(crate) fn table(&self, name: &str) -> Table<'a> {
        let value = self.get(name);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let Some(value) = value
            && table.is_none()
        {
            let hint = value.get_ref().as_array().map(|_| format!("there is one of it: write [{}]", self.key(name)));
            self.wrong_type_with(value, name, "a table", hint);
        }
        self.inside(self.key(name), value.map(Spanned::span).unwrap_or_default(), table)
    }

    /// The tables of a list of tables; elements that are texts come as the second part.
    pub(crate) fn tables(&self, name: &str) -> (Vec<Table<'a>>, Vec<Found<String>>) {
        let Some(value) = self.get(name) else { return Default::default() };
        let Some(items) = value.get_ref().as_array() else {
            let hint = value
                .get_ref()
                .as_table()
                .map(|_| format!("there may be several: write [[{}]], with two brackets at each end", self.key(name)));
            self.wrong_type_with(value, name, "a list", hint);
            return Default::default();
        };
        let (mut tables, mut texts) = (Vec::new(), Vec::new());
        for (number, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    tables.push(self.inside(format!("{}[{number}]", self.key(name)), item.span(), Some(table)));
                }
                DeValue::String(text) => {
                    texts.push(Found { value: text.to_string(), from: From::File(item.span()) });
                }
                _ => self.wrong_type(item, name, "a list of tables or texts"),
            }
        }
        (tables, texts)
    }

    /// The tables inside that have names of the user's choice.
    pub(crate) fn named_tables(&self) -> Vec<(String, Table<'a>)> {
        let Some(table) = self.table else { return Vec::new() };
        let names: Vec<_> = table.iter().map(|(key, _)| key.get_ref().to_string()).collect();
        names.into_iter().map(|name| (name.clone(), self.table(&name))).collect()
    }

    fn inside(&self, path: String, span: Range<usize>, table: Option<&'a DeTable<'a>>) -> Table<'a> {
        Table { path, span, table, asked: RefCell::default(), notes: self.notes.clone() }
    }

    /// Notes every key that nobody has asked for.
    pub(crate) fn finish(&self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for (key, _) in table.iter().filter(|(key, _)| !asked.contains(key.get_ref().as_ref())) {
            let name = key.get_ref().as_ref();
            let meant = nearest(name, asked.iter().map(String::as_str));
            let hint = match (meant, secret_file(name, &asked)) {
                (_, Some(file)) => format!(
                    "a secret does not stand here: put it into a file that only you may read, and name that by `{file}`; or \
                     set its environment variable"
                ),
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, _) => format!("known here: {}", asked.iter().cloned().collect::<Vec<_>>().join(", ")),
            };
            let hint = Some(hint);
            self.notes.at(key.span(), &self.key(name), "is not a key that logwarden knows", hint);
        }
    }
}

/// The key of the file where the secret belongs that somebody has written as `name`.
fn secret_file<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let file = match name {
        "webhook" | "webhook_url" | "address" => "url_file",
        "token" | "bearer_token" => "bearer_file",
        _ => return None,
    };
    known.get(file).map(String::as_str)
}
