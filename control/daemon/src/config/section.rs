//! The layer between parsed TOML and the settings: getters that report what is wrong and remember
//! what was asked for, so that whatever is left over at the end is an unknown key. Serde would stop
//! at the first mistake.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{ProblemKind, Report};

/// A value and the key that it was read from.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    /// Octets of the text; `None` for a default.
    pub(super) at: Option<Range<usize>>,
    /// Such as `link[lan].t1`.
    pub(super) key: String,
}

/// What was found under a key.
#[derive(Clone, Debug)]
pub(super) enum Setting<T> {
    /// Nothing.
    Absent,
    /// A value that was reported as an error. Checks that need it are left out.
    Wrong,
    /// A value.
    Given(Located<T>),
}

impl<T> Setting<T> {
    pub(super) const fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }

    pub(super) fn given(self) -> Option<Located<T>> {
        match self {
            Self::Given(located) => Some(located),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// The bare value; that of a wrong setting is never used, since the file is refused.
    pub(super) fn value(self) -> Option<T> {
        self.given().map(|located| located.value)
    }

    /// This setting, or what stands in its place when it is absent.
    pub(super) fn or(self, other: &Self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Absent => other.clone(),
            Self::Wrong | Self::Given(_) => self,
        }
    }
}

/// What was found under a key that takes several values.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    /// The values that are right.
    pub(super) items: Vec<Located<T>>,
    /// Whether the key is there.
    pub(super) given: bool,
    /// Whether no value had to be left out as wrong.
    pub(super) sound: bool,
}

impl<T> List<T> {
    pub(super) fn values(self) -> Vec<T> {
        self.items.into_iter().map(|located| located.value).collect()
    }

    /// This list, or another one when the key is absent.
    pub(super) fn or(self, other: &Self) -> Self
    where
        T: Clone,
    {
        if self.given { self } else { other.clone() }
    }
}

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) hint: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// What the reading of one value comes to.
pub(super) type Read<T> = Result<T, Wrong>;

/// What all sections of a file share.
pub(super) struct Reader<'t> {
    pub(super) report: RefCell<Report<'t>>,
    /// The keys that were asked for, by schema path: `link.relay`.
    known: RefCell<BTreeMap<String, BTreeSet<&'static str>>>,
    unknown: RefCell<Vec<UnknownKey>>,
}

struct UnknownKey {
    schema: String,
    path: String,
    name: String,
    at: Range<usize>,
}

impl<'t> Reader<'t> {
    pub(super) const fn new(report: Report<'t>) -> Self {
        Self {
            report: RefCell::new(report),
            known: RefCell::new(BTreeMap::new()),
            unknown: RefCell::new(Vec::new()),
        }
    }

    pub(super) fn error(
        &self,
        kind: ProblemKind,
        at: Option<Range<usize>>,
        key: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report.borrow_mut().error(kind, at, key, what, hint);
    }

    pub(super) fn warning(
        &self,
        at: Option<Range<usize>>,
        key: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report.borrow_mut().warning(ProblemKind::Value, at, key, what, hint);
    }

    /// Where another setting is, for messages that name two: ` in line 12`, or ` by default`.
    pub(super) fn place<T>(&self, other: &Located<T>) -> String {
        self.place_of(other.at.as_ref())
    }

    pub(super) fn place_of(&self, at: Option<&Range<usize>>) -> String {
        at.map_or_else(
            || " by default".to_owned(),
            |at| format!(" in line {}", self.report.borrow().line(at.start)),
        )
    }

    /// Every key that was asked for, by schema path.
    pub(super) fn known(&self) -> BTreeMap<String, BTreeSet<&'static str>> {
        self.known.borrow().clone()
    }

    /// Reports the keys that nothing asked for. `keys` are those that exist, by schema path.
    pub(super) fn report_unknown(
        &self,
        keys: impl FnOnce() -> BTreeMap<String, BTreeSet<&'static str>>,
    ) {
        let unknown = self.unknown.take();
        if unknown.is_empty() {
            return;
        }
        let keys = keys();
        for key in unknown {
            let here = keys.get(&key.schema).cloned().unwrap_or_default();
            let elsewhere = keys.iter().find(|(schema, names)| {
                !schema.is_empty() && **schema != key.schema && names.contains(key.name.as_str())
            });
            let hint = if let Some(name) = closest(&key.name, here.iter().copied()) {
                format!("did you mean `{name}`?")
            } else if let Some((schema, _)) = elsewhere {
                format!("it belongs in `{schema}`")
            } else {
                let names: Vec<&str> = here.into_iter().collect();
                format!("known here: {}", names.join(", "))
            };
            let what = if key.schema.is_empty() { "unknown table" } else { "unknown key" };
            self.error(ProblemKind::Unknown, Some(key.at), key.path, what, hint);
        }
    }
}

/// One table of the file, or the place of one that is not there.
pub(super) struct Section<'d, 't> {
    reader: &'d Reader<'t>,
    table: Option<&'d DeTable<'d>>,
    at: Option<Range<usize>>,
    /// Such as `link[lan].relay`.
    path: String,
    /// Such as `link.relay`.
    schema: String,
    seen: BTreeSet<&'static str>,
}

impl<'d, 't> Section<'d, 't> {
    pub(super) const fn root(reader: &'d Reader<'t>, table: &'d DeTable<'d>) -> Self {
        Self {
            reader,
            table: Some(table),
            at: None,
            path: String::new(),
            schema: String::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The value of a key, if it is there.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Setting<T> {
        let Some(value) = self.lookup(key) else { return Setting::Absent };
        let (at, key) = (value.span(), self.path_of(key));
        match read(value.get_ref()) {
            Ok(value) => Setting::Given(Located { value, at: Some(at), key }),
            Err(wrong) => {
                self.reader.error(ProblemKind::Value, Some(at), key, wrong.what, wrong.hint);
                Setting::Wrong
            }
        }
    }

    /// The value of a key, or a default.
    pub(super) fn get_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Located<T> {
        let located = self.get(key, read).given();
        located.unwrap_or_else(|| Located { value: default, at: None, key: self.path_of(key) })
    }

    /// The values of a key that takes several; a single one may stand without brackets.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&DeValue<'_>) -> Read<T>,
    ) -> List<T> {
        let mut list = List { items: Vec::new(), given: false, sound: true };
        let Some(value) = self.lookup(key) else { return list };
        list.given = true;
        let path = self.path_of(key);
        let mut add = |value: &Spanned<DeValue<'_>>, key: String| match read(value.get_ref()) {
            Ok(item) => list.items.push(Located { value: item, at: Some(value.span()), key }),
            Err(wrong) => {
                let at = Some(value.span());
                self.reader.error(ProblemKind::Value, at, key, wrong.what, wrong.hint);
                list.sound = false;
            }
        };
        match value.get_ref() {
            DeValue::Array(values) => {
                for (i, value) in values.iter().enumerate() {
                    add(value, format!("{path}[{i}]"));
                }
            }
            _ => add(value, path),
        }
        list
    }

    /// A table below this one; an empty one if it is not there.
    pub(super) fn table(&mut self, key: &'static str) -> Self {
        let (path, schema) = (self.path_of(key), join(&self.schema, key));
        let value = self.lookup(key);
        let at = value.map(Spanned::span);
        let table = match value.map(Spanned::get_ref) {
            None => None,
            Some(DeValue::Table(table)) => Some(table),
            Some(DeValue::Array(_)) => {
                let hint = format!("write `[{path}]`, once");
                self.wrong_type(&path, at.clone(), "there is only one such table", hint);
                None
            }
            Some(other) => {
                let what = format!("expected a table, found {}", type_name(other));
                self.wrong_type(&path, at.clone(), what, format!("write `[{path}]`"));
                None
            }
        };
        Self { reader: self.reader, table, at, path, schema, seen: BTreeSet::new() }
    }

    /// A table below this one, or a word that stands in its place, such as `"off"`.
    pub(super) fn table_or_word(&mut self, key: &'static str, word: &str) -> TableOr<Self> {
        let path = self.path_of(key);
        let Some(value) = self.lookup(key) else { return TableOr::Table(self.table(key)) };
        match value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => TableOr::Table(self.table(key)),
            DeValue::String(text) if text == word => TableOr::Word(value.span()),
            other => {
                let what = match other.as_str() {
                    Some(text) => format!("\"{}\" is not known", text.escape_debug()),
                    None => format!("expected a table, found {}", type_name(other)),
                };
                let hint =
                    format!("write `[{}]` with its keys, or \"{word}\"", self.schema_of(key));
                self.wrong_type(&path, Some(value.span()), what, hint);
                TableOr::Wrong
            }
        }
    }

    fn schema_of(&self, key: &str) -> String {
        join(&self.schema, key)
    }

    /// The tables below this one that share a name. Each is called by its key `label`, where it has
    /// one, in messages.
    pub(super) fn tables(&mut self, key: &'static str, label: &str) -> Vec<Self> {
        let (path, schema) = (self.path_of(key), join(&self.schema, key));
        let Some(value) = self.lookup(key) else { return Vec::new() };
        let DeValue::Array(values) = value.get_ref() else {
            let what = format!("expected a list of tables, found {}", type_name(value.get_ref()));
            let hint = if self.schema.is_empty() {
                format!("write `[[{path}]]` above each")
            } else {
                "put it in `[` and `]`".to_owned()
            };
            self.wrong_type(&path, Some(value.span()), what, hint);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let at = Some(value.span());
            let DeValue::Table(table) = value.get_ref() else {
                let what = format!("expected a table, found {}", type_name(value.get_ref()));
                self.wrong_type(&format!("{path}[{i}]"), at, what, "write `{ key = value, ... }`");
                continue;
            };
            let name = table.get(label).and_then(|name| name.get_ref().as_str());
            let path = match name {
                Some(name) if !name.is_empty() => format!("{path}[{}]", name.escape_debug()),
                _ => format!("{path}[{i}]"),
            };
            let schema = schema.clone();
            let (reader, table, seen) = (self.reader, Some(table), BTreeSet::new());
            sections.push(Self { reader, table, at, path, schema, seen });
        }
        sections
    }

    /// Whether the key is there, without asking for it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the table itself is there.
    pub(super) const fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn at(&self) -> Option<Range<usize>> {
        self.at.clone()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Says that a key has to be there.
    pub(super) fn missing(&self, key: &str, hint: impl Into<String>) {
        let at = self.at.clone();
        self.reader.error(ProblemKind::Missing, at, self.path_of(key), "is missing", hint);
    }

    /// The end of the table: what was not asked for does not exist.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for name in table.keys() {
            if self.seen.contains(name.get_ref().as_ref()) {
                continue;
            }
            let text = name.get_ref().escape_debug().to_string();
            let path = self.path_of(&text);
            let (schema, name, at) = (self.schema.clone(), text, name.span());
            self.reader.unknown.borrow_mut().push(UnknownKey { schema, path, name, at });
        }
    }

    fn lookup(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.seen.insert(key);
        let mut known = self.reader.known.borrow_mut();
        known.entry(self.schema.clone()).or_default().insert(key);
        self.table.and_then(|table| table.get(key))
    }

    fn wrong_type(
        &self,
        path: &str,
        at: Option<Range<usize>>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.reader.error(ProblemKind::Value, at, path, what, hint);
    }
}

/// What [`Section::table_or_word`] finds.
pub(super) enum TableOr<S> {
    /// The table, which may not be there.
    Table(S),
    /// The word, and its place.
    Word(Range<usize>),
    /// Something else, which has been reported.
    Wrong,
}

/// The known word that a mistyped one is most like, if it is like any.
pub(super) fn closest<'w>(
    mistyped: &str,
    words: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    let mistyped = mistyped.to_lowercase().replace('-', "_");
    let plain = |word: &str| word.replace('-', "_");
    let mut best: Option<((usize, usize), &str)> = None;
    for word in words {
        let distance = strsim::osa_distance(&mistyped, &plain(word));
        // `pools` for `address_pools`, `dns` for `dns_servers`.
        let is_part = mistyped.len() >= 3 && plain(word).split('_').any(|part| part == mistyped);
        let likeness = if is_part { distance.min(2) } else { distance };
        let rank = (likeness, distance);
        let limit = word.len().max(mistyped.len()).div_ceil(3);
        if likeness <= limit && best.is_none_or(|(least, _)| rank < least) {
            best = Some((rank, word));
        }
    }
    best.map(|(_, word)| word)
}

/// A TOML type with its article.
pub(super) const fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn suggests_what_is_near() {
        let keys = ["address_pools", "prefix_pools", "prefixes", "dns_servers", "t1"];
        for (mistyped, meant) in [
            ("prefix", Some("prefixes")),
            ("prefixs", Some("prefixes")),
            ("adress_pools", Some("address_pools")),
            ("address-pools", Some("address_pools")),
            ("DNS_Servers", Some("dns_servers")),
            ("dns", Some("dns_servers")),
            ("lease_time", None),
            ("", None),
        ] {
            assert_eq!(closest(mistyped, keys), meant, "{mistyped}");
        }
    }
}
