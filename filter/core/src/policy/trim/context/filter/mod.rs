//! Which chunks may be used at all: a small language over their metadata.
//!
//! ```text
//! lang == "en" and year >= 2020 and not (source in ["a", "b"])
//! exists(author) or "public" in tags
//! ```
//!
//! Operands are names of fields (`a.b` for nested ones, `score` for the chunk's own score), texts
//! in double or single quotes, numbers, `true`, `false` and lists of these. A comparison with a
//! field that is missing is false, whichever it is; a field alone is true where its value is
//! `true`. `and` binds closer than `or`, `not` closer than `and`.

mod parse;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use super::metadata::{Metadata, Value};

/// Longest expression, in bytes.
pub const MAX_LENGTH: usize = 4096;
/// Deepest nesting of parentheses and `not`: bounds the stack of the parser and of the evaluation.
pub const MAX_DEPTH: usize = 32;

/// An expression that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Expr);

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Any(Vec<Expr>),
    All(Vec<Expr>),
    Not(Box<Expr>),
    Exists(String),
    Compare(Operand, Op, Operand),
    In(Operand, Operand),
    Truth(Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Field(String),
    Value(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Why an expression cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: found {found}, expected {expected}")]
pub struct FilterFault {
    /// Where, in characters from 1.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What could.
    pub expected: &'static str,
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`FilterFault`] for the first place at which it cannot go on.
    pub fn parse(text: &str) -> Result<Filter, FilterFault> {
        parse::expression(text).map(Filter)
    }

    /// Whether it is true of a chunk.
    #[must_use]
    pub fn holds(&self, metadata: &Metadata) -> bool {
        holds(&self.0, metadata)
    }
}

/// As deep as [`MAX_DEPTH`].
fn holds(expr: &Expr, metadata: &Metadata) -> bool {
    let value = |operand| resolve(operand, metadata);
    match expr {
        Expr::Any(list) => list.iter().any(|one| holds(one, metadata)),
        Expr::All(list) => list.iter().all(|one| holds(one, metadata)),
        Expr::Not(inner) => !holds(inner, metadata),
        Expr::Exists(name) => metadata.get(name).is_some(),
        Expr::Truth(operand) => value(operand) == Some(&Value::Bool(true)),
        Expr::In(one, of) => match (value(one), value(of)) {
            (Some(one), Some(Value::List(list))) => list.iter().any(|other| equal(one, other)),
            _ => false,
        },
        Expr::Compare(left, op, right) => match (value(left), value(right)) {
            (Some(left), Some(right)) => compare(left, *op, right),
            _ => false,
        },
    }
}

fn resolve<'a>(operand: &'a Operand, metadata: &'a Metadata) -> Option<&'a Value> {
    match operand {
        Operand::Field(name) => metadata.get(name),
        Operand::Value(value) => Some(value),
    }
}

fn compare(left: &Value, op: Op, right: &Value) -> bool {
    match op {
        Op::Equal => equal(left, right),
        Op::Unequal => !equal(left, right),
        Op::Less => order(left, right) == Some(Ordering::Less),
        Op::More => order(left, right) == Some(Ordering::Greater),
        Op::AtMost => matches!(order(left, right), Some(Ordering::Less | Ordering::Equal)),
        Op::AtLeast => matches!(
            order(left, right),
            Some(Ordering::Greater | Ordering::Equal)
        ),
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Bool(value), Value::Text(text)) | (Value::Text(text), Value::Bool(value)) => {
            text == if *value { "true" } else { "false" }
        }
        (Value::Bool(_), _) | (_, Value::Bool(_)) | (Value::List(_), _) | (_, Value::List(_)) => {
            left == right
        }
        _ => order(left, right) == Some(Ordering::Equal),
    }
}

/// Texts in the order of their bytes, so that ISO dates are in order; where one side is a number,
/// by number. None where there is no order.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Number(_), _) | (_, Value::Number(_)) => {
            left.number()?.partial_cmp(&right.number()?)
        }
        _ => None,
    }
}
