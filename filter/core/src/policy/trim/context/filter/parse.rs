//! The reader of filter expressions: by descent, as deep as [`MAX_DEPTH`].

use super::{Expr, FilterFault, MAX_DEPTH, MAX_LENGTH, Op, Operand};
use crate::policy::trim::context::metadata::Value;

pub(super) fn expression(text: &str) -> Result<Expr, FilterFault> {
    if text.len() > MAX_LENGTH {
        return Err(FilterFault {
            column: 1,
            found: format!("{} bytes", text.len()),
            expected: "an expression of at most 4096 bytes",
        });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
    };
    let expr = parser.any()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.fault("`and`, `or` or the end")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Value(Value),
    Op(Op),
    /// `(`, `)`, `[`, `]` or `,`.
    Sign(char),
    End,
}

/// A token, its column and how it is written.
struct Placed {
    token: Token,
    column: usize,
    written: String,
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |placed| &placed.token)
    }

    fn fault(&self, expected: &'static str) -> FilterFault {
        let placed = self.tokens.get(self.at).or(self.tokens.last());
        FilterFault {
            column: placed.map_or(1, |placed| placed.column),
            found: placed.map_or_else(String::new, |placed| placed.written.clone()),
            expected,
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(name) if name == word)
    }

    /// Takes the next token if it is `word`.
    fn word(&mut self, word: &str) -> bool {
        let is = self.is_word(word);
        self.at += usize::from(is);
        is
    }

    fn sign(&mut self, sign: char) -> bool {
        let is = *self.peek() == Token::Sign(sign);
        self.at += usize::from(is);
        is
    }

    fn any(&mut self) -> Result<Expr, FilterFault> {
        let mut list = vec![self.all()?];
        while self.word("or") {
            list.push(self.all()?);
        }
        Ok(one_or(list, Expr::Any))
    }

    fn all(&mut self) -> Result<Expr, FilterFault> {
        let mut list = vec![self.not()?];
        while self.word("and") {
            list.push(self.not()?);
        }
        Ok(one_or(list, Expr::All))
    }

    fn not(&mut self) -> Result<Expr, FilterFault> {
        if self.is_word("not") {
            return self.deeper(|parser| {
                parser.at += 1;
                Ok(Expr::Not(Box::new(parser.not()?)))
            });
        }
        if *self.peek() == Token::Sign('(') {
            return self.deeper(|parser| {
                parser.at += 1;
                let inner = parser.any()?;
                if parser.sign(')') {
                    Ok(inner)
                } else {
                    Err(parser.fault("`and`, `or` or `)`"))
                }
            });
        }
        if self.word("exists") {
            return self.exists();
        }
        self.comparison()
    }

    fn deeper(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<Expr, FilterFault>,
    ) -> Result<Expr, FilterFault> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault("at most 32 levels of parentheses and `not`"));
        }
        self.depth += 1;
        let expr = inner(self)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn exists(&mut self) -> Result<Expr, FilterFault> {
        if !self.sign('(') {
            return Err(self.fault("`(` and a field's name"));
        }
        let Operand::Field(name) = self.operand()? else {
            self.at -= 1;
            return Err(self.fault("a field's name"));
        };
        if self.sign(')') {
            Ok(Expr::Exists(name))
        } else {
            Err(self.fault("`)`"))
        }
    }

    fn comparison(&mut self) -> Result<Expr, FilterFault> {
        let left = self.operand()?;
        if let Token::Op(op) = *self.peek() {
            self.at += 1;
            return Ok(Expr::Compare(left, op, self.operand()?));
        }
        let negated = self.is_word("not");
        self.at += usize::from(negated);
        if self.word("in") {
            let list = self.operand()?;
            if matches!(&list, Operand::Value(value) if !matches!(value, Value::List(_))) {
                self.at -= 1;
                return Err(self.fault("a list, like [\"a\", \"b\"], or a field that is one"));
            }
            let within = Expr::In(left.clone(), list);
            // As every comparison, false where the field is missing.
            return Ok(match (negated, left) {
                (false, _) => within,
                (true, Operand::Field(name)) => {
                    Expr::All(vec![Expr::Exists(name), Expr::Not(Box::new(within))])
                }
                (true, Operand::Value(_)) => Expr::Not(Box::new(within)),
            });
        }
        if negated {
            return Err(self.fault("`in`"));
        }
        match left {
            Operand::Field(_) | Operand::Value(Value::Bool(_)) => Ok(Expr::Truth(left)),
            Operand::Value(_) => Err(self.fault("a comparison: ==, !=, <, <=, >, >=, in")),
        }
    }

    fn operand(&mut self) -> Result<Operand, FilterFault> {
        let token = self.peek().clone();
        let operand = match token {
            Token::Name(name) if !is_reserved(&name) => Operand::Field(name),
            Token::Value(value) => Operand::Value(value),
            Token::Sign('[') => return self.list(),
            _ => {
                return Err(
                    self.fault("a field's name, a text in quotes, a number, true, false or a list")
                );
            }
        };
        self.at += 1;
        Ok(operand)
    }

    fn list(&mut self) -> Result<Operand, FilterFault> {
        self.at += 1;
        let mut values = Vec::new();
        while !self.sign(']') {
            if !values.is_empty() && !self.sign(',') {
                return Err(self.fault("`,` or `]`"));
            }
            let Token::Value(value) = self.peek().clone() else {
                return Err(self.fault("a text in quotes, a number, true or false"));
            };
            self.at += 1;
            values.push(value);
        }
        Ok(Operand::Value(Value::List(values)))
    }
}

fn one_or(mut list: Vec<Expr>, join: impl FnOnce(Vec<Expr>) -> Expr) -> Expr {
    match list.pop() {
        Some(only) if list.is_empty() => only,
        last => {
            list.extend(last);
            join(list)
        }
    }
}

fn is_reserved(name: &str) -> bool {
    matches!(name, "and" | "or" | "not" | "in" | "exists")
}

fn tokens(text: &str) -> Result<Vec<Placed>, FilterFault> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let column = text
            .get(..text.len() - rest.len())
            .unwrap_or("")
            .chars()
            .count()
            + 1;
        let (token, len) = token(rest).map_err(|(found, expected)| FilterFault {
            column,
            found,
            expected,
        })?;
        let written = match rest.get(..len) {
            Some("") | None => "the end".to_owned(),
            Some(written) => format!("`{written}`"),
        };
        let ends = token == Token::End;
        tokens.push(Placed {
            token,
            column,
            written,
        });
        if ends {
            return Ok(tokens);
        }
        rest = rest.get(len..).unwrap_or("");
    }
}

/// The token that `rest` begins with, and its length.
fn token(rest: &str) -> Result<(Token, usize), (String, &'static str)> {
    const OPS: [(&str, Op); 6] = [
        ("==", Op::Equal),
        ("!=", Op::Unequal),
        ("<=", Op::AtMost),
        (">=", Op::AtLeast),
        ("<", Op::Less),
        (">", Op::More),
    ];
    let Some(first) = rest.chars().next() else {
        return Ok((Token::End, 0));
    };
    if let Some((written, op)) = OPS.iter().find(|(written, _)| rest.starts_with(written)) {
        return Ok((Token::Op(*op), written.len()));
    }
    match first {
        '(' | ')' | '[' | ']' | ',' => Ok((Token::Sign(first), 1)),
        '"' | '\'' => quoted(rest, first),
        '=' => Err(("`=`".to_owned(), "`==`")),
        '0'..='9' | '-' => {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)))
                .unwrap_or(rest.len());
            let written = rest.get(..end).unwrap_or("");
            let number = written
                .replace('_', "")
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite());
            match number {
                Some(number) => Ok((Token::Value(Value::Number(number)), end)),
                None => Err((format!("`{written}`"), "a number, like 3 or -0.5")),
            }
        }
        first if first.is_alphabetic() || first == '_' => {
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c)))
                .unwrap_or(rest.len());
            let written = rest.get(..end).unwrap_or("");
            let token = match written {
                "true" => Token::Value(Value::Bool(true)),
                "false" => Token::Value(Value::Bool(false)),
                name => Token::Name(name.to_owned()),
            };
            Ok((token, end))
        }
        other => Err((
            format!("`{other}`"),
            "a field's name, a text in quotes, a number, a comparison, and, or, not",
        )),
    }
}

/// A text in quotes; a backslash takes the character after it as it is.
fn quoted(rest: &str, quote: char) -> Result<(Token, usize), (String, &'static str)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => text.extend(chars.next().map(|(_, c)| c)),
            c if c == quote => return Ok((Token::Value(Value::Text(text)), at + 1)),
            c => text.push(c),
        }
    }
    Err(("a text without its end".to_owned(), "a closing quote"))
}
