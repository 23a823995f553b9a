//! JSON as far as a steering manifest needs it (RFC 8259).

/// Values inside of values, at most: a hostile text must not exhaust the stack. A manifest has five levels.
const MOST_DEPTH: usize = 16;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    /// `None` if `text` is not JSON.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text };
        let value = parser.value(0)?;
        parser.skip_space();
        parser.rest.is_empty().then_some(value)
    }

    /// The member of a map.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The values of a list; nothing for other values.
    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }

    /// The members of a map that are text; nothing for other values.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let members = match self {
            Self::Map(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().filter_map(|(name, value)| Some((name.as_str(), value.text()?)))
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    /// Takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth == MOST_DEPTH {
            return None;
        }
        for (token, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
        {
            if self.take(token) {
                return Some(value);
            }
        }
        match self.rest.chars().next()? {
            '"' => self.string().map(Json::Text),
            '[' => self.items("[", "]", |parser| parser.value(depth + 1)).map(Json::List),
            '{' => self.items("{", "}", |parser| parser.member(depth + 1)).map(Json::Map),
            _ => self.number(),
        }
    }

    fn member(&mut self, depth: usize) -> Option<(String, Json)> {
        self.skip_space();
        let name = self.string()?;
        if self.take(":") { Some((name, self.value(depth)?)) } else { None }
    }

    fn items<T>(
        &mut self,
        open: &str,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut items = Vec::new();
        if !self.take(open) {
            return None;
        }
        if self.take(close) {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(close) {
                return Some(items);
            }
            if !self.take(",") {
                return None;
            }
        }
    }

    fn number(&mut self) -> Option<Json> {
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        number.parse().ok().map(Json::Number)
    }

    fn string(&mut self) -> Option<String> {
        let mut rest = self.rest.strip_prefix('"')?;
        let mut text = String::new();
        loop {
            let end = rest.find(['"', '\\'])?;
            text.push_str(&rest[..end]);
            let is_end = rest[end..].starts_with('"');
            rest = &rest[end + 1..];
            if is_end {
                self.rest = rest;
                return Some(text);
            }
            rest = unescape(rest, &mut text)?;
        }
    }
}

/// Adds the character behind a backslash to `text`, and returns what follows it.
fn unescape<'a>(rest: &'a str, text: &mut String) -> Option<&'a str> {
    let mut chars = rest.chars();
    let plain = match chars.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => {
            let hex = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
            let unit = hex(chars.as_str())?;
            let rest = &chars.as_str()[4..];
            // A character beyond 16 bits is a pair of escapes (RFC 8259, section 7).
            if let Some(low) = rest.strip_prefix("\\u").and_then(hex).filter(|_| unit & 0xfc00 == 0xd800) {
                text.push(char::from_u32(0x1_0000 + ((unit & 0x3ff) << 10 | low & 0x3ff))?);
                return rest.get(6..);
            }
            text.push(char::from_u32(unit)?);
            return Some(rest);
        }
        other @ ('"' | '\\' | '/') => other,
        _ => return None,
    };
    text.push(plain);
    Some(chars.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_all_kinds() {
        let value =
            Json::parse(r#" {"a":[1,-2.5e1,"x\n\u00e9\ud83d\ude00\/"],"b":{},"c":null,"d":true,"e":[]} "#);
        let value = value.unwrap();
        let list = value.get("a").unwrap().list();
        assert_eq!(list, [Json::Number(1.0), Json::Number(-25.0), Json::Text("x\né😀/".into())]);
        assert_eq!((value.get("c"), value.get("d")), (Some(&Json::Null), Some(&Json::Bool(true))));
        assert_eq!(value.get("e").unwrap().list(), []);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = "[".repeat(100_000);
        for text in
            ["", "{", "[1,]", "{\"a\"}", "\"\\u12\"", "\"\\ud800\"", "1 2", "nul", "\"a", deep.as_str()]
        {
            assert_eq!(Json::parse(text), None, "{:.20}", text);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\[\\]{}\":,\\\\uda0-9é \n.e-]{0,60}") {
            Json::parse(&text);
        }
    }
}
