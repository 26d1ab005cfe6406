//! Which folders a job looks into: its pattern, a year, and today. Pure.

use std::fmt;
use std::str::FromStr;

use fcp_proto::path::RelPath;
use jiff::ToSpan;
use jiff::civil::Date;

/// Years that a job can be asked for.
pub const YEARS: std::ops::RangeInclusive<i16> = 1970..=9999;

/// `folder_pattern`: folders below the base, by their dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderPattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Year,
    Month,
    Day,
}

/// A folder that may hold files of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Below the base; the root is the base itself.
    pub path: RelPath,
}

impl Default for FolderPattern {
    /// `{yyyy}/{yyyy}{mm}`.
    fn default() -> FolderPattern {
        let parts = vec![Part::Year, Part::Text("/".to_owned()), Part::Year, Part::Month];
        FolderPattern { text: "{yyyy}/{yyyy}{mm}".to_owned(), parts }
    }
}

impl fmt::Display for FolderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for FolderPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<FolderPattern, String> {
        let slashes = text.replace('\\', "/");
        let pattern =
            FolderPattern { text: slashes.clone(), parts: parts(slashes.trim_end_matches('/'))? };
        // Whatever the date: placeholders are digits.
        pattern.on(Date::constant(2000, 1, 1)).map(|_| pattern)
    }
}

impl FolderPattern {
    /// The folder of a day.
    fn on(&self, day: Date) -> Result<RelPath, String> {
        let text: String = self.parts.iter().map(|part| part.on(day)).collect();
        if text.is_empty() {
            return Ok(RelPath::root());
        }
        let refused =
            |why| format!("a folder below the base is needed, and this is one with {why}");
        RelPath::new(text.as_bytes()).map_err(refused)
    }

    fn has(&self, part: &Part) -> bool {
        self.parts.contains(part)
    }
}

impl Part {
    fn on(&self, day: Date) -> String {
        match self {
            Part::Text(text) => text.clone(),
            Part::Year => format!("{:04}", day.year()),
            Part::Month => format!("{:02}", day.month()),
            Part::Day => format!("{:02}", day.day()),
        }
    }
}

/// Splits a pattern at its placeholders.
fn parts(mut text: &str) -> Result<Vec<Part>, String> {
    const KNOWN: &str = "the placeholders are {yyyy}, {mm} and {dd}";
    let mut parts = Vec::new();
    while let Some(at) = text.find(['{', '}']) {
        let (before, rest) = text.split_at(at);
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let (name, rest) = inner.ok_or_else(|| format!("a bracket without its other; {KNOWN}"))?;
        parts.push(match name.to_ascii_lowercase().as_str() {
            "yyyy" => Part::Year,
            "mm" => Part::Month,
            "dd" => Part::Day,
            _ => return Err(KNOWN.to_owned()),
        });
        text = rest;
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(parts)
}

/// Those of [`folders`] that only days after `today` belong to.
pub fn to_come(pattern: &FolderPattern, year: Option<i16>, today: Date) -> Vec<Folder> {
    let first = Date::constant(today.year(), 1, 1);
    let begun = between(pattern, first, today);
    let mut all = folders(pattern, year, today);
    let later = year.is_some_and(|year| year >= today.year());
    all.retain(|folder| later && !begun.contains(folder));
    all
}

/// The folders to look into, oldest first, each once: those of `year`, or else those of the
/// previous and the current month, so that New Year loses nothing.
pub fn folders(pattern: &FolderPattern, year: Option<i16>, today: Date) -> Vec<Folder> {
    let first = today.first_of_month();
    let (from, to) = match year.filter(|year| YEARS.contains(year)) {
        Some(year) => (Date::constant(year, 1, 1), Date::constant(year, 12, 31)),
        None => (first.saturating_sub(1.month()), today.last_of_month()),
    };
    between(pattern, from, to)
}

fn between(pattern: &FolderPattern, from: Date, to: Date) -> Vec<Folder> {
    let step = if pattern.has(&Part::Day) { 1.day() } else { 1.month() };
    let mut folders: Vec<Folder> = Vec::new();
    for day in from.series(step).take_while(|day| *day <= to) {
        // Checked when the pattern was read.
        let Ok(path) = pattern.on(day) else { continue };
        if !folders.iter().any(|folder| folder.path == path) {
            folders.push(Folder { path });
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn list(pattern: &str, year: Option<i16>, today: Date) -> Vec<String> {
        let pattern: FolderPattern = pattern.parse().unwrap();
        let folders = folders(&pattern, year, today);
        folders
            .into_iter()
            .map(|f| String::from_utf8(f.path.as_bytes().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn months_that_have_not_begun_are_known() {
        let pattern = FolderPattern::default();
        let come = |year, today| to_come(&pattern, year, today).len();
        assert_eq!(come(Some(2026), date(2026, 11, 20)), 1);
        assert_eq!(come(Some(2026), date(2026, 12, 31)), 0);
        assert_eq!(come(Some(2027), date(2026, 1, 31)), 12);
        assert_eq!((come(Some(2025), date(2026, 1, 1)), come(None, date(2026, 1, 1))), (0, 0));
    }

    #[test]
    fn s27_new_year_loses_nothing() {
        let default = FolderPattern::default().to_string();
        assert_eq!(list(&default, None, date(2026, 1, 1)), ["2025/202512", "2026/202601"]);
        assert_eq!(list(&default, None, date(2026, 3, 31)), ["2026/202602", "2026/202603"]);
        assert_eq!(default.parse(), Ok(FolderPattern::default()));
    }

    #[test]
    fn s27_a_year_is_twelve_months_whenever_today_is() {
        let months = list("{yyyy}/{yyyy}{mm}", Some(2024), date(2026, 5, 5));
        assert_eq!(months.len(), 12);
        assert_eq!((months[0].as_str(), months[11].as_str()), ("2024/202401", "2024/202412"));
        assert_eq!(list("{yyyy}", Some(9999), date(2026, 5, 5)), ["9999"]);
        assert_eq!(list("{mm}", Some(9999), date(2026, 5, 5)).len(), 12);
        assert_eq!(list("{yyyy}{mm}{dd}", Some(9999), date(2026, 5, 5)).len(), 365);
    }

    #[test]
    fn days_are_all_days_of_those_months() {
        let days = list("{yyyy}/{mm}/{dd}", None, date(2024, 3, 5));
        assert_eq!(days.len(), 29 + 31);
        assert_eq!((days[0].as_str(), days[59].as_str()), ("2024/02/01", "2024/03/31"));
        assert_eq!(list("x{dd}", Some(2024), date(2024, 3, 5)).len(), 31);
    }

    #[test]
    fn no_pattern_is_the_base_itself() {
        assert_eq!(list("", None, date(2024, 3, 5)), [""]);
        assert_eq!(list("", Some(2020), date(2024, 3, 5)), [""]);
        assert_eq!(list("IN", None, date(2024, 3, 5)), ["IN"]);
        assert_eq!(list("{yyyy}\\{mm}/", None, date(2024, 3, 5)), ["2024/02", "2024/03"]);
    }

    #[test]
    fn s27_what_is_no_pattern_is_refused() {
        for bad in
            ["{yy}", "{month}", "{yyyy", "yyyy}", "/{yyyy}", "a//b", "../{yyyy}", "a/..", ".", "{}"]
        {
            assert!(bad.parse::<FolderPattern>().is_err(), "{bad}");
        }
    }
}
