//! One line of CSV (RFC 4180) as its fields.

use std::borrow::Cow;

/// The most columns that a line may have; what stands beyond is not looked at.
const COLUMNS_MAX: usize = 64;

/// Where the fields of a line stand in it.
#[derive(Debug)]
pub(super) struct Fields {
    count: usize,
    bounds: [(u32, u32); COLUMNS_MAX],
}

impl Default for Fields {
    fn default() -> Self {
        Self { count: 0, bounds: [(0, 0); COLUMNS_MAX] }
    }
}

impl Fields {
    /// Splits a line at its commas; a quoted field may hold commas, and `""` for a quote.
    pub(super) fn split(&mut self, line: &str) -> Result<(), String> {
        let bytes = line.as_bytes();
        let mut start = 0;
        self.count = 0;
        loop {
            let end = if bytes.get(start) == Some(&b'"') {
                quoted_end(bytes, start)?
            } else {
                bytes[start..].iter().position(|b| *b == b',').map_or(bytes.len(), |n| start + n)
            };
            if self.count < COLUMNS_MAX {
                self.bounds[self.count] = (start as u32, end as u32);
                self.count += 1;
            }
            if end == bytes.len() {
                return Ok(());
            }
            start = end + 1;
        }
    }

    /// A field without its quotes and the spaces around it.
    pub(super) fn get<'a>(&self, line: &'a str, column: usize) -> Option<Cow<'a, str>> {
        let (start, end) = *self.bounds[..self.count].get(column)?;
        let field = &line[start as usize..end as usize];
        Some(match field.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
            Some(inner) if inner.contains('"') => Cow::Owned(inner.replace("\"\"", "\"")),
            Some(inner) => Cow::Borrowed(inner.trim()),
            None => Cow::Borrowed(field.trim()),
        })
    }

    /// All fields, in order.
    pub(super) fn iter<'a>(&'a self, line: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        (0..self.count).filter_map(|column| self.get(line, column))
    }
}

/// Where a quoted field that begins at `start` ends: at the comma behind its closing quote, or at the line's end.
fn quoted_end(bytes: &[u8], start: usize) -> Result<usize, String> {
    let mut at = start + 1;
    loop {
        let Some(quote) = bytes[at..].iter().position(|b| *b == b'"') else {
            return Err("a quote is not closed".to_owned());
        };
        at += quote + 1;
        match bytes.get(at) {
            None | Some(b',') => return Ok(at),
            Some(b'"') => at += 1,
            Some(_) => return Err("a closing quote is not followed by a comma".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_splits_as_rfc_4180_says() {
        for (line, expected) in [
            ("a,b,c", Ok(vec!["a", "b", "c"])),
            ("", Ok(vec![""])),
            (",", Ok(vec!["", ""])),
            (" a , b ", Ok(vec!["a", "b"])),
            (r#""a,b",c"#, Ok(vec!["a,b", "c"])),
            (r#""say ""hi""","""""#, Ok(vec![r#"say "hi""#, r#"""#])),
            (r#""x,y"#, Err("a quote is not closed")),
            (r#""a" b,c"#, Err("a closing quote is not followed by a comma")),
            (r#"a"b,c"#, Ok(vec![r#"a"b"#, "c"])),
        ] {
            let mut fields = Fields::default();
            let split = fields.split(line).map(|()| fields.iter(line).collect::<Vec<_>>());
            assert_eq!(
                split,
                expected.map(|f| f.into_iter().map(Cow::from).collect()).map_err(str::to_owned),
                "{line}"
            );
        }
    }

    #[test]
    fn columns_beyond_the_bound_are_not_looked_at() {
        let line = vec!["x"; 1_000].join(",");
        let mut fields = Fields::default();
        fields.split(&line).unwrap();
        assert_eq!(fields.iter(&line).count(), COLUMNS_MAX);
        assert_eq!(fields.get(&line, COLUMNS_MAX), None);
    }
}
