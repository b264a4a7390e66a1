//! How single values are written: words, numbers, durations, sizes, paths.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::section::{Read, Wrong, closest, type_name};

/// Infinity as a lifetime (RFC 8415 section 7.7).
pub(super) const INFINITE: u32 = u32::MAX;

/// A string. `expected` names what should stand there and `example` how it is written.
pub(super) fn text<'v>(value: &'v DeValue<'_>, expected: &str, example: &str) -> Read<&'v str> {
    value.as_str().ok_or_else(|| {
        let what = format!("expected {expected}, found {}", type_name(value));
        Wrong::new(what, format!("write {example}"))
    })
}

pub(super) fn boolean(value: &DeValue<'_>) -> Read<bool> {
    value.as_bool().ok_or_else(|| {
        let what = format!("expected true or false, found {}", type_name(value));
        let hint = match value.as_str() {
            Some("true" | "false") => "leave out the quotes",
            _ => "write true or false, without quotes",
        };
        Wrong::new(what, hint)
    })
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&'static str, T)]) -> Read<T> {
    let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let all = all.join(", ");
    let given = text(value, "one of a few words", &all)?;
    if let Some((_, found)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(*found);
    }
    let hint = closest(given, words.iter().map(|(word, _)| *word)).map_or_else(
        || format!("write one of {all}"),
        |word| format!("did you mean \"{word}\"? there are {all}"),
    );
    Err(Wrong::new(format!("\"{}\" is not known", given.escape_debug()), hint))
}

/// A whole number within bounds.
pub(super) fn integer(value: &DeValue<'_>, bounds: RangeInclusive<u64>) -> Read<u64> {
    let (min, max) = (*bounds.start(), *bounds.end());
    let hint = format!("write a number from {min} to {max}");
    let Some(integer) = value.as_integer() else {
        let what = format!("expected a whole number, found {}", type_name(value));
        return Err(Wrong::new(what, hint));
    };
    let digits = integer.as_str().replace('_', "");
    // Whatever does not even fit into an i128 is out of any bounds.
    let number = i128::from_str_radix(&digits, integer.radix()).ok();
    number
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| bounds.contains(number))
        .ok_or_else(|| Wrong::new(format!("{digits} is out of bounds"), hint))
}

pub(super) fn integer_u32(value: &DeValue<'_>, bounds: RangeInclusive<u32>) -> Read<u32> {
    let number = integer(value, u64::from(*bounds.start())..=u64::from(*bounds.end()))?;
    Ok(u32::try_from(number).unwrap_or_else(|_| *bounds.end()))
}

/// A number of ring entries or frames.
pub(super) fn power_of_two(value: &DeValue<'_>, bounds: RangeInclusive<u32>) -> Read<u32> {
    let max = *bounds.end();
    let number = integer_u32(value, bounds.clone())?;
    if number.is_power_of_two() {
        return Ok(number);
    }
    let above = number.checked_next_power_of_two().unwrap_or(max);
    let hint = if bounds.contains(&(above / 2)) && bounds.contains(&above) {
        format!("write {} or {above}", above / 2)
    } else {
        format!("write {}", above.clamp(*bounds.start(), *bounds.end()))
    };
    Err(Wrong::new(format!("{number} is not a power of two"), hint))
}

/// A length of time: `"90s"`, `"1h30m"`, or a number of seconds.
pub(super) fn duration(value: &DeValue<'_>, bounds: RangeInclusive<Duration>) -> Read<Duration> {
    let found = any_duration(value)?;
    if bounds.contains(&found) {
        return Ok(found);
    }
    let hint = format!("write {} to {}", spell(*bounds.start()), spell(*bounds.end()));
    Err(Wrong::new(format!("{} is out of bounds", spell(found)), hint))
}

/// Whole seconds that fit into a 32-bit field. Infinity only where the bounds reach it.
pub(super) fn seconds(value: &DeValue<'_>, bounds: RangeInclusive<u32>) -> Read<u32> {
    let (min, max) = (*bounds.start(), *bounds.end());
    let spelled_max = if max == INFINITE {
        "\"infinite\"".to_owned()
    } else {
        spell(Duration::from_secs(u64::from(max)))
    };
    let hint = format!("write {} to {spelled_max}", spell(Duration::from_secs(u64::from(min))));
    if value.as_str() == Some("infinite") {
        return match max {
            INFINITE => Ok(INFINITE),
            _ => Err(Wrong::new("cannot be infinite", hint)),
        };
    }
    let found = any_duration(value)?;
    if found.subsec_nanos() != 0 {
        return Err(Wrong::new(format!("{} is not a whole second", spell(found)), hint));
    }
    // The largest value is the word for infinity, so no number means it.
    u32::try_from(found.as_secs())
        .ok()
        .filter(|seconds| bounds.contains(seconds) && *seconds != INFINITE)
        .ok_or_else(|| Wrong::new(format!("{} is out of bounds", spell(found)), hint))
}

/// A number of octets: `"64MiB"`, or a plain number.
pub(super) fn size(value: &DeValue<'_>, bounds: RangeInclusive<u64>) -> Read<u64> {
    const UNITS: [(&str, u64); 5] =
        [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    const EXAMPLE: &str = "a size such as \"64MiB\"";
    let found = if value.is_integer() {
        integer(value, 0..=u64::MAX)?
    } else {
        let given = text(value, "a size", "a size such as \"64MiB\"")?;
        let unknown =
            |hint: String| Wrong::new(format!("\"{}\" is not a size", given.escape_debug()), hint);
        let digits = given.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = given.split_at(digits);
        let unit = unit.trim();
        let Ok(number) = number.parse::<u64>() else {
            return Err(unknown(format!("write {EXAMPLE}")));
        };
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let first = unit.chars().next().map(|c| c.to_ascii_uppercase());
            let meant = UNITS.iter().find(|(name, _)| name.chars().next() == first);
            return Err(unknown(meant.map_or_else(
                || format!("write {EXAMPLE}"),
                |(name, _)| format!("did you mean \"{number}{name}\"?"),
            )));
        };
        number
            .checked_mul(*factor)
            .ok_or_else(|| Wrong::new("is far too large", format!("write {EXAMPLE}")))?
    };
    let hint = || format!("write {} to {}", spell_size(*bounds.start()), spell_size(*bounds.end()));
    if !bounds.contains(&found) {
        return Err(Wrong::new(format!("{} is out of bounds", spell_size(found)), hint()));
    }
    if found % 4096 != 0 {
        let below = (found / 4096 * 4096).max(*bounds.start());
        let what = format!("{found} is not a multiple of 4096, the size of a page");
        return Err(Wrong::new(what, format!("write {below}")));
    }
    Ok(found)
}

/// An absolute path of at most `len_max` octets.
pub(super) fn path(value: &DeValue<'_>, len_max: usize) -> Read<PathBuf> {
    let given = text(value, "a path", "a path such as \"/var/lib/gemel\"")?;
    if given.contains('\0') {
        return Err(Wrong::new("a path holds no NUL character", "remove it"));
    }
    if !given.starts_with('/') {
        let what = format!("\"{}\" is not an absolute path", given.escape_debug());
        return Err(Wrong::new(what, "begin it with `/`"));
    }
    if given.len() > len_max {
        let what = format!("the path has {} octets, at most {len_max} are possible", given.len());
        return Err(Wrong::new(what, "choose a shorter path"));
    }
    Ok(PathBuf::from(given))
}

/// How a duration is written in the configuration.
pub(super) fn spell(duration: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1000),
        ("us", 1),
    ];
    let micros = duration.as_micros();
    if micros == 0 {
        return "\"0s\"".to_owned();
    }
    let unit = UNITS.iter().find(|(_, factor)| micros.is_multiple_of(*factor)).unwrap_or(&UNITS[5]);
    format!("\"{}{}\"", micros / unit.1, unit.0)
}

fn spell_size(size: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if size >> shift > 0 && size.trailing_zeros() >= shift {
            return format!("\"{}{unit}\"", size >> shift);
        }
    }
    size.to_string()
}

fn any_duration(value: &DeValue<'_>) -> Read<Duration> {
    if value.is_integer() {
        return Ok(Duration::from_secs(integer(value, 0..=u64::MAX)?));
    }
    let given = text(value, "a duration", "a duration such as \"90s\", \"10m\" or \"2h\"")?;
    duration_from_text(given).ok_or_else(|| {
        let what = format!("\"{}\" is not a duration", given.escape_debug());
        Wrong::new(what, "write a number and one of us, ms, s, m, h, d, w, such as \"90s\"")
    })
}

/// Numbers each with a unit; a bare number counts seconds.
fn duration_from_text(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|octet| octet.is_ascii_digit()) {
        return rest.parse().ok().map(Duration::from_secs);
    }
    let mut micros: u64 = 0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let factor: u64 = match unit {
            "us" => 1,
            "ms" => 1000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            "w" => 604_800_000_000,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(factor)?;
        micros = micros.checked_add(part)?;
        parts += 1;
        rest = after;
    }
    (parts > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T>(toml: &str, read: impl FnOnce(&DeValue<'_>) -> Read<T>) -> Result<T, String> {
        let value = DeValue::parse(toml).unwrap();
        read(value.get_ref()).map_err(|wrong| format!("{} | {}", wrong.what, wrong.hint))
    }

    #[test]
    fn durations() {
        for (text, secs) in [
            ("90", 90),
            ("\"90\"", 90),
            ("\"90s\"", 90),
            ("\"10m\"", 600),
            ("\"1h30m\"", 5400),
            ("\"2h\"", 7200),
            ("\"7d\"", 604_800),
            ("\"1w\"", 604_800),
            ("0x10", 16),
            ("1_000", 1000),
        ] {
            assert_eq!(parse(text, |v| seconds(v, 0..=INFINITE)), Ok(secs), "{text}");
        }
        assert_eq!(parse("\"infinite\"", |v| seconds(v, 0..=INFINITE)), Ok(INFINITE));
        assert!(parse("\"infinite\"", |v| seconds(v, 0..=9)).unwrap_err().contains("infinite"));
        for text in
            ["\"\"", "\"s\"", "\"1 h\"", "\"1y\"", "\"-1s\"", "\"1.5h\"", "\"99999999999999w\""]
        {
            assert!(parse(text, |v| seconds(v, 0..=INFINITE)).is_err(), "{text}");
        }
        for text in ["-1", "1.5", "true", "[]", "4294967295", "\"1ms\"", "99999999999999999999999"]
        {
            assert!(parse(text, |v| seconds(v, 0..=INFINITE)).is_err(), "{text}");
        }
        let micros = |v: &DeValue<'_>| duration(v, Duration::ZERO..=Duration::from_secs(1));
        assert_eq!(parse("\"50us\"", micros), Ok(Duration::from_micros(50)));
        let error = parse("\"2s\"", micros).unwrap_err();
        assert_eq!(error, "\"2s\" is out of bounds | write \"0s\" to \"1s\"");
    }

    #[test]
    fn sizes() {
        let bounds = 4096..=1 << 40;
        assert_eq!(parse("\"64MiB\"", |v| size(v, bounds.clone())), Ok(64 << 20));
        assert_eq!(parse("\"4 KiB\"", |v| size(v, bounds.clone())), Ok(4096));
        assert_eq!(parse("8192", |v| size(v, bounds.clone())), Ok(8192));
        let error = |text| parse(text, |v| size(v, bounds.clone())).unwrap_err();
        assert!(error("\"64MB\"").contains("did you mean \"64MiB\"?"));
        assert!(error("\"64m\"").contains("did you mean \"64MiB\"?"));
        assert!(error("\"2TiB\"").contains("out of bounds"));
        assert!(error("5000").contains("write 4096"));
        assert!(error("\"99999999999999TiB\"").contains("too large"));
        assert!(error("\"x\"").contains("write a size"));
    }

    #[test]
    fn words_and_numbers() {
        let words = [("power-loss", 1), ("process", 2)];
        assert_eq!(parse("\"process\"", |v| word(v, &words)), Ok(2));
        let error = parse("\"powerloss\"", |v| word(v, &words)).unwrap_err();
        assert!(error.contains("did you mean \"power-loss\"?"), "{error}");
        assert_eq!(parse("0b11", |v| integer(v, 0..=9)), Ok(3));
        assert!(parse("10", |v| integer(v, 0..=9)).unwrap_err().contains("from 0 to 9"));
        assert_eq!(parse("64", |v| power_of_two(v, 16..=1024)), Ok(64));
        let error = parse("65", |v| power_of_two(v, 16..=1024)).unwrap_err();
        assert!(error.contains("write 64 or 128"), "{error}");
        assert!(parse("\"true\"", boolean).unwrap_err().contains("quotes"));
    }

    #[test]
    fn paths() {
        assert!(parse("\"relative\"", |v| path(v, 100)).unwrap_err().contains("absolute"));
        assert!(parse("\"/a\\u0000b\"", |v| path(v, 100)).is_err());
        assert!(parse("\"/abc\"", |v| path(v, 3)).unwrap_err().contains("at most 3"));
        assert_eq!(parse("\"/abc\"", |v| path(v, 4)), Ok(PathBuf::from("/abc")));
    }
}
