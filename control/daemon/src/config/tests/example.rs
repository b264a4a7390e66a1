//! The example file and the manual, held against what the reader knows.

use super::*;

/// A setting of the example that is switched off, as the file says in its first lines.
fn is_switched_off(line: &str) -> bool {
    line.starts_with('#') && line.len() > 1 && !line.starts_with("# ")
}

pub(super) fn switched_on() -> String {
    let on = |line: &str| {
        let line = if is_switched_off(line) { &line[1..] } else { line };
        format!("{line}\n")
    };
    EXAMPLE.lines().map(on).collect()
}

#[test]
fn loads_as_it_is() {
    assert_eq!(load(EXAMPLE).warnings, []);
}

#[test]
fn loads_with_everything_switched_on() {
    let config = load(&switched_on());
    assert_eq!(config.links.len(), 2);
    assert_eq!(config.dataplane.flood_limit.unwrap().burst, 2000);
    assert!(config.links[0].options[0].always);
    assert_eq!(config.failover[0].links, [0]);
    assert_eq!(config.failover[0].tls.as_ref().unwrap().partner_name, "two.example.net");
}

/// Each switched-off setting changes nothing when it is switched on, unless it is called an example;
/// then it does.
#[test]
fn shows_the_defaults() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let show = |config: Config| format!("{config:#?}");
    let usual = show(load(EXAMPLE));
    let mut tried = 0;
    let mut live = true;
    for (i, line) in lines.iter().enumerate() {
        if line.starts_with('[') || line.starts_with("#[") {
            live = line.starts_with('[');
        }
        if !is_switched_off(line) || !live {
            continue;
        }
        let mut changed = lines.clone();
        changed[i] = &line[1..];
        let shown = show(load(&changed.join("\n")));
        let is_example = lines[i - 1] == "# Example:";
        assert_eq!(shown != usual, is_example, "line {}: {line}", i + 1);
        tried += 1;
    }
    assert!(tried > 40, "only {tried} settings found");
}

/// What the example shows for a relationship are the defaults too, where there are any.
#[test]
fn shows_the_defaults_of_failover() {
    let text = switched_on();
    let usual = load(&text).failover;
    let mut tried = 0;
    let begin = text.find("[[failover]]").unwrap();
    let needed = ["name", "role", "partner", "links", "mclt", "ca", "certificate", "key"];
    for line in text[begin..].lines() {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        if line.starts_with('#') || needed.contains(&key) || key == "partner_name" {
            continue;
        }
        let shown = load(&text.replacen(&format!("\n{line}\n"), "\n", 1)).failover;
        assert_eq!(shown == usual, key != "local", "{line}");
        tried += 1;
    }
    assert_eq!(tried, 13);
}

#[test]
fn refuses_a_key_planted_into_each_table() {
    let text = switched_on();
    let lines: Vec<&str> = text.lines().collect();
    let mut planted = 0;
    for (i, line) in lines.iter().enumerate() {
        // Below a header the key takes a line of its own, in an inline table it does not.
        let mut variants = Vec::new();
        if line.starts_with('[') {
            variants.push((format!("{line}\nsurely_not_a_key = 1"), i + 2, 1));
        }
        for (at, _) in line.match_indices('{') {
            let (before, after) = line.split_at(at + 1);
            variants.push((format!("{before} surely_not_a_key = 1,{after}"), i + 1, at + 3));
        }
        for (variant, row, column) in variants {
            let mut changed: Vec<&str> = lines.clone();
            changed[i] = &variant;
            let errors = parse(&changed.join("\n")).unwrap_err().errors;
            assert_eq!(errors.len(), 1, "{errors:?}");
            let error = &errors[0];
            assert_eq!(error.kind, ProblemKind::Unknown);
            assert_eq!((error.line, error.column), (row, column), "{error}");
            assert!(error.key.ends_with("surely_not_a_key"), "{error}");
            assert!(error.hint.starts_with("known here: "), "{error}");
            planted += 1;
        }
    }
    assert_eq!(planted, 16, "tables of the example");
    // At the top there are only tables.
    let error = parse(&format!("surely_not_a_key = 1\n{text}")).unwrap_err();
    assert!(error.to_string().contains("test.toml:1:1: surely_not_a_key: unknown table"));
}

#[test]
fn example_names_every_key() {
    fn collect(schema: &str, table: &DeTable<'_>, keys: &mut BTreeSet<String>) {
        for (name, value) in table {
            let name = name.get_ref();
            let path =
                if schema.is_empty() { name.to_string() } else { format!("{schema}.{name}") };
            let tables: Vec<_> = match value.get_ref() {
                DeValue::Table(table) => vec![table],
                DeValue::Array(items) => {
                    items.iter().filter_map(|item| item.get_ref().as_table()).collect()
                }
                _ => Vec::new(),
            };
            if tables.is_empty() {
                keys.insert(path.clone());
            }
            for table in tables {
                collect(&path, table, keys);
            }
        }
    }
    let text = switched_on();
    let mut named = BTreeSet::new();
    collect("", DeTable::parse(&text).unwrap().get_ref(), &mut named);
    let known: BTreeSet<String> = Config::keys().into_iter().collect();
    let missing: Vec<_> = known.difference(&named).collect();
    assert!(missing.is_empty(), "not in the example: {missing:?}");
    assert!(named.is_subset(&known));
}

/// Headings such as "Table `server`" and "Tables `link` and `defaults`" name tables; the rows below
/// them begin with a key each.
#[test]
fn manual_names_every_key() {
    let mut named = BTreeSet::new();
    let mut tables: Vec<&str> = Vec::new();
    for line in MANUAL.lines() {
        if line.starts_with('#') {
            let is_table = line.contains("Table");
            tables = if is_table { line.split('`').skip(1).step_by(2).collect() } else { vec![] };
        } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`'))
        {
            assert!(!tables.is_empty(), "a row outside of a table's section: {line}");
            named.extend(tables.iter().map(|table| format!("{table}.{key}")));
        }
    }
    let known: BTreeSet<String> = Config::keys().into_iter().collect();
    let missing: Vec<_> = known.difference(&named).collect();
    assert!(missing.is_empty(), "not in the manual: {missing:?}");
    let invented: Vec<_> = named.difference(&known).collect();
    assert!(invented.is_empty(), "only in the manual: {invented:?}");
}

/// The examples of the manual load.
#[test]
fn manual_shows_what_loads() {
    let blocks: Vec<&str> =
        MANUAL.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        load(block);
    }
}
