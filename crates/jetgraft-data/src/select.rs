//! A small typed language for selections: `jet_pt > 500 and abs(jet_eta) < 2 and process in (0, 1)`.
//!
//! # Language
//! * numbers (`500`, `1.5e-3`), `true`, `false`, columns by name (`` `odd name` `` in backquotes);
//! * `+ - * /`, unary `-`, `abs(x)`, `sqrt(x)`, `log(x)` (natural), `min(x, y)`, `max(x, y)`, `len(list)` (length of a list column);
//! * `< <= > >= == !=`, chains as in `500 < jet_pt < 600`; `x in (1, 2, 3)`, `x not in (1, 2)`;
//! * `and or not` (also `&& || !`), parentheses; `is_finite(x)`.
//!
//! Binding, from loose to tight: `or`, `and`, `not`, comparisons and `in`, `+ -`, `* /`, unary `-`.
//!
//! # Missing values
//! Arithmetic is in f64; an integer column compared with an integer literal (or another integer column) is compared
//! exactly, so that 64-bit event ids are safe. A null or NaN makes a comparison *undecided*; `not`
//! leaves it undecided, `and` is false if one side is false, `or` is true if one side is true (three-valued logic, as in
//! SQL). Only rows for which the whole expression is true are selected: a row with a missing value is never
//! selected by a comparison with it, nor by the opposite of that comparison. `is_finite(x)` is always decided: false for null, NaN
//! and infinities. Infinities compare as numbers.

use std::collections::BTreeSet;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow::record_batch::RecordBatch;

use crate::error::{DataError, nearest};
use crate::table::{ColumnSpec, DType, Kind};

/// Longest expression taken, in bytes.
const MAX_TEXT: usize = 1 << 14;

/// Deepest nesting of parentheses and prefixes.
const MAX_DEPTH: usize = 48;

/// Most operations in one expression.
const MAX_NODES: usize = 1024;

/// A selection that has been checked against the columns of a table.
#[derive(Clone, Debug)]
pub struct Selection {
    text: String,
    expression: Expression,
    columns: BTreeSet<String>,
}

impl Selection {
    /// Reads an expression and checks it against the columns of a table.
    ///
    /// # Errors
    /// [`DataError::Expression`] with the place of the fault; an unknown column comes with the nearest names.
    pub fn parse(text: &str, columns: &[ColumnSpec]) -> Result<Self, DataError> {
        let fault = |at: usize, len: usize, message: String, nearest| DataError::Expression {
            text: text.to_owned(),
            at,
            len: len.max(1),
            message,
            nearest,
        };
        if text.len() > MAX_TEXT {
            return Err(fault(
                0,
                1,
                format!("expression of {} bytes (at most {MAX_TEXT})", text.len()),
                vec![],
            ));
        }
        let tokens = tokens(text).map_err(|f| fault(f.at, f.len, f.message, f.nearest))?;
        let mut parser =
            Parser { tokens, next: 0, columns, used: BTreeSet::new(), depth: 0, nodes: 0, end: text.len() };
        let expression = parser.whole().map_err(|f| fault(f.at, f.len, f.message, f.nearest))?;
        Ok(Self { text: text.to_owned(), expression, columns: parser.used })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the columns it uses.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }

    /// Decides every row of a batch: true, false, or null where a missing value leaves it undecided.
    ///
    /// # Errors
    /// [`DataError::Expression`] when the batch lacks a column or holds it with another type than it was checked for.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<BooleanArray, DataError> {
        let truth = truth(&self.expression, batch).map_err(|message| DataError::Expression {
            text: self.text.clone(),
            at: 0,
            len: self.text.len().max(1),
            message,
            nearest: vec![],
        })?;
        Ok(truth.into_iter().collect())
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// ---- what an expression is -----------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

impl Compare {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterEqual => order.is_ge(),
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unary {
    Negate,
    Abs,
    Sqrt,
    Log,
}

#[derive(Clone, Debug)]
enum Expression {
    // numbers
    Integer(i128),
    Float(f64),
    IntegerColumn(String),
    FloatColumn(String),
    Length(String),
    Unary(Unary, Box<Expression>),
    Binary(Binary, Box<Expression>, Box<Expression>),
    // truth values
    Truth(bool),
    BoolColumn(String),
    Compare(Compare, Box<Expression>, Box<Expression>),
    SameTruth(bool, Box<Expression>, Box<Expression>),
    In(Box<Expression>, Vec<Expression>),
    IsFinite(Box<Expression>),
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
}

impl Expression {
    fn is_truth(&self) -> bool {
        matches!(
            self,
            Self::Truth(_)
                | Self::BoolColumn(_)
                | Self::Compare(..)
                | Self::SameTruth(..)
                | Self::In(..)
                | Self::IsFinite(_)
                | Self::Not(_)
                | Self::And(..)
                | Self::Or(..)
        )
    }

    /// Whether its values are exact integers.
    fn is_integer(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::IntegerColumn(_) | Self::Length(_))
    }
}

// ---- reading it ----------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Integer(i128),
    Float(f64),
    Name(String),
    /// A name in backquotes: always a column.
    Quoted(String),
    Symbol(&'static str),
}

#[derive(Clone, Debug)]
struct Placed {
    token: Token,
    at: usize,
    len: usize,
}

struct Fault {
    at: usize,
    len: usize,
    message: String,
    nearest: Vec<String>,
}

impl Fault {
    fn new(at: usize, len: usize, message: impl Into<String>) -> Self {
        Self { at, len, message: message.into(), nearest: vec![] }
    }
}

const SYMBOLS: [&str; 17] =
    ["<=", ">=", "==", "!=", "&&", "||", "<", ">", "(", ")", ",", "+", "-", "*", "/", "!", "="];

fn tokens(text: &str) -> Result<Vec<Placed>, Fault> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (token, len) = if byte.is_ascii_digit() || (byte == b'.' && digit(bytes, at + 1)) {
            number(text, at)?
        } else if byte.is_ascii_alphabetic() || byte == b'_' {
            let len = bytes[at..]
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_' || **b == b'.')
                .count();
            (Token::Name(text[at..at + len].to_owned()), len)
        } else if byte == b'`' {
            let Some(inner) = text[at + 1..].find('`') else {
                return Err(Fault::new(at, text.len() - at, "a backquote without its partner"));
            };
            (Token::Quoted(text[at + 1..at + 1 + inner].to_owned()), inner + 2)
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| text[at..].starts_with(**symbol)) {
            if *symbol == "=" {
                return Err(Fault::new(at, 1, "`=`; equality is written `==`"));
            }
            (Token::Symbol(symbol), symbol.len())
        } else {
            let character = text[at..].chars().next().unwrap_or(' ');
            return Err(Fault::new(at, character.len_utf8(), format!("unexpected character `{character}`")));
        };
        tokens.push(Placed { token, at, len });
        at += len;
    }
    Ok(tokens)
}

fn digit(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_digit)
}

fn number(text: &str, start: usize) -> Result<(Token, usize), Fault> {
    let bytes = text.as_bytes();
    let mut at = start;
    let mut whole = true;
    let digits = |at: &mut usize| {
        while digit(bytes, *at) || (bytes.get(*at) == Some(&b'_') && digit(bytes, *at + 1)) {
            *at += 1;
        }
    };
    digits(&mut at);
    if bytes.get(at) == Some(&b'.') {
        whole = false;
        at += 1;
        digits(&mut at);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if digit(bytes, at + 1 + sign) {
            whole = false;
            at += 1 + sign;
            digits(&mut at);
        }
    }
    if bytes.get(at).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_' || *b == b'.') {
        return Err(Fault::new(
            start,
            at + 1 - start,
            "a number that runs into a name; columns that begin with a digit go in backquotes",
        ));
    }
    let digits: String = text[start..at].chars().filter(|c| *c != '_').collect();
    let unreadable = || Fault::new(start, at - start, "a number out of range");
    let token = if whole {
        Token::Integer(digits.parse::<u64>().map_err(|_| unreadable())?.into())
    } else {
        let value: f64 = digits.parse().map_err(|_| unreadable())?;
        if !value.is_finite() {
            return Err(unreadable());
        }
        Token::Float(value)
    };
    Ok((token, at - start))
}

struct Parser<'a> {
    tokens: Vec<Placed>,
    next: usize,
    columns: &'a [ColumnSpec],
    used: BTreeSet<String>,
    depth: usize,
    nodes: usize,
    end: usize,
}

impl Parser<'_> {
    fn whole(&mut self) -> Result<Expression, Fault> {
        let expression = self.truth_here(Self::or)?;
        match self.tokens.get(self.next) {
            None => Ok(expression),
            Some(extra) => Err(Fault::new(
                extra.at,
                extra.len,
                "expected an operator such as `and`, `<`, `+`, or the end of the expression",
            )),
        }
    }

    // -- tokens --

    fn place(&self) -> (usize, usize) {
        self.tokens.get(self.next).map_or((self.end, 1), |token| (token.at, token.len))
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        let (at, len) = self.place();
        Err(Fault::new(at, len, message))
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.tokens.get(self.next), Some(Placed { token: Token::Symbol(s), .. }) if *s == symbol);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(self.next, word);
        self.next += usize::from(found);
        found
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        matches!(self.tokens.get(at), Some(Placed { token: Token::Name(name), .. }) if name == word)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.symbol(symbol) { Ok(()) } else { self.fault(format!("expected `{symbol}`")) }
    }

    /// Counts an operation; the tree stays small enough to be walked and dropped by recursion.
    fn node(&mut self, expression: Expression) -> Result<Expression, Fault> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.fault(format!("expression of more than {MAX_NODES} operations"));
        }
        Ok(expression)
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= MAX_DEPTH {
            return self.fault(format!("expression nested deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        let outcome = parse(self);
        self.depth -= 1;
        outcome
    }

    /// Parses something that must be a truth value.
    fn truth_here(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Expression, Fault>,
    ) -> Result<Expression, Fault> {
        let (at, len) = self.place();
        let expression = parse(self)?;
        if expression.is_truth() {
            Ok(expression)
        } else {
            Err(Fault::new(at, len, "a number where a condition is expected, such as `jet_pt > 500`"))
        }
    }

    /// Parses something that must be a number.
    fn number_here(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Expression, Fault>,
    ) -> Result<Expression, Fault> {
        let (at, len) = self.place();
        let expression = parse(self)?;
        if expression.is_truth() {
            Err(Fault::new(at, len, "a condition where a number is expected"))
        } else {
            Ok(expression)
        }
    }

    // -- grammar, from loose to tight --

    fn or(&mut self) -> Result<Expression, Fault> {
        let start = self.place();
        let mut left = self.and()?;
        while self.symbol("||") || self.word("or") {
            require_truth(&left, start)?;
            let right = self.truth_here(Self::and)?;
            left = self.node(Expression::Or(left.into(), right.into()))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, Fault> {
        let start = self.place();
        let mut left = self.not()?;
        while self.symbol("&&") || self.word("and") {
            require_truth(&left, start)?;
            let right = self.truth_here(Self::not)?;
            left = self.node(Expression::And(left.into(), right.into()))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression, Fault> {
        if self.symbol("!") || self.word("not") {
            let inner = self.deeper(|parser| parser.truth_here(Self::not))?;
            return self.node(Expression::Not(inner.into()));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, Fault> {
        let start = self.place();
        let first = self.sum()?;
        let negated = self.is_word(self.next, "not") && self.is_word(self.next + 1, "in");
        self.next += usize::from(negated);
        if self.word("in") {
            require_number(&first, start)?;
            let members = self.members()?;
            let inside = self.node(Expression::In(first.into(), members))?;
            return if negated { self.node(Expression::Not(inside.into())) } else { Ok(inside) };
        }
        let mut whole: Option<Expression> = None;
        let mut left = first;
        let mut left_start = start;
        while let Some(compare) = self.comparator() {
            let right_start = self.place();
            let right = self.sum()?;
            let link = match (left.is_truth(), right.is_truth(), compare) {
                (true, true, Compare::Equal | Compare::NotEqual) => {
                    Expression::SameTruth(compare == Compare::Equal, left.into(), right.clone().into())
                }
                (false, false, _) => Expression::Compare(compare, left.into(), right.clone().into()),
                (true, _, _) => return Err(condition_as_number(left_start)),
                (_, true, _) => return Err(condition_as_number(right_start)),
            };
            let link = self.node(link)?;
            whole = Some(match whole {
                None => link,
                Some(before) => self.node(Expression::And(before.into(), link.into()))?,
            });
            (left, left_start) = (right, right_start);
        }
        Ok(whole.unwrap_or(left))
    }

    fn comparator(&mut self) -> Option<Compare> {
        [
            ("<=", Compare::LessEqual),
            (">=", Compare::GreaterEqual),
            ("==", Compare::Equal),
            ("!=", Compare::NotEqual),
            ("<", Compare::Less),
            (">", Compare::Greater),
        ]
        .into_iter()
        .find(|(symbol, _)| self.symbol(symbol))
        .map(|(_, compare)| compare)
    }

    fn members(&mut self) -> Result<Vec<Expression>, Fault> {
        self.expect("(")?;
        let mut members = Vec::new();
        loop {
            let negative = self.symbol("-");
            let member = match self.tokens.get(self.next).map(|placed| &placed.token) {
                Some(Token::Integer(value)) => Expression::Integer(if negative { -value } else { *value }),
                Some(Token::Float(value)) => Expression::Float(if negative { -value } else { *value }),
                _ => return self.fault("expected a number in the list after `in`"),
            };
            self.next += 1;
            let member = self.node(member)?;
            members.push(member);
            if self.symbol(")") {
                return Ok(members);
            }
            self.expect(",")?;
        }
    }

    fn sum(&mut self) -> Result<Expression, Fault> {
        let start = self.place();
        let mut left = self.product()?;
        loop {
            let operation = if self.symbol("+") {
                Binary::Add
            } else if self.symbol("-") {
                Binary::Subtract
            } else {
                return Ok(left);
            };
            require_number(&left, start)?;
            let right = self.number_here(Self::product)?;
            left = self.node(Expression::Binary(operation, left.into(), right.into()))?;
        }
    }

    fn product(&mut self) -> Result<Expression, Fault> {
        let start = self.place();
        let mut left = self.sign()?;
        loop {
            let operation = if self.symbol("*") {
                Binary::Multiply
            } else if self.symbol("/") {
                Binary::Divide
            } else {
                return Ok(left);
            };
            require_number(&left, start)?;
            let right = self.number_here(Self::sign)?;
            left = self.node(Expression::Binary(operation, left.into(), right.into()))?;
        }
    }

    fn sign(&mut self) -> Result<Expression, Fault> {
        if self.symbol("-") {
            let inner = self.deeper(|parser| parser.number_here(Self::sign))?;
            return match inner {
                Expression::Integer(value) => Ok(Expression::Integer(-value)),
                inner => self.node(Expression::Unary(Unary::Negate, inner.into())),
            };
        }
        if self.symbol("+") {
            return self.deeper(|parser| parser.number_here(Self::sign));
        }
        self.atom()
    }

    fn atom(&mut self) -> Result<Expression, Fault> {
        if self.symbol("(") {
            let inner = self.deeper(Self::or)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let Some(Placed { token, at, len }) = self.tokens.get(self.next).cloned() else {
            return self.fault("expected a number, a column or `(`, and the expression ends");
        };
        match token {
            Token::Integer(value) => {
                self.next += 1;
                self.node(Expression::Integer(value))
            }
            Token::Float(value) => {
                self.next += 1;
                self.node(Expression::Float(value))
            }
            Token::Quoted(name) => {
                self.next += 1;
                self.column(&name, at, len)
            }
            Token::Symbol(symbol) => {
                self.fault(format!("expected a number, a column or `(`, found `{symbol}`"))
            }
            Token::Name(name) => {
                self.next += 1;
                match name.as_str() {
                    "true" => return self.node(Expression::Truth(true)),
                    "false" => return self.node(Expression::Truth(false)),
                    "and" | "or" | "not" | "in" => {
                        return Err(Fault::new(
                            at,
                            len,
                            format!("expected a number or a column, found `{name}`"),
                        ));
                    }
                    _ => {}
                }
                if self.symbol("(") {
                    return self.deeper(|parser| parser.call(&name, at, len));
                }
                self.column(&name, at, len)
            }
        }
    }

    /// A function whose opening parenthesis has been read.
    fn call(&mut self, name: &str, at: usize, len: usize) -> Result<Expression, Fault> {
        const FUNCTIONS: [&str; 7] = ["abs", "sqrt", "log", "min", "max", "len", "is_finite"];
        if !FUNCTIONS.contains(&name) {
            let near = nearest(name, FUNCTIONS);
            let mut message = format!("no function `{name}`; there are {}", FUNCTIONS.join(", "));
            if let Some(near) = near.first() {
                message.push_str(&format!(" (`{near}`?)"));
            }
            return Err(Fault::new(at, len, message));
        }
        if name == "len" {
            let (list_at, list_len) = self.place();
            let Some(Placed { token: Token::Name(column) | Token::Quoted(column), .. }) =
                self.tokens.get(self.next).cloned()
            else {
                return self.fault("expected the name of a list column");
            };
            self.next += 1;
            let spec = self.spec(&column, list_at, list_len)?;
            if spec.kind != Kind::List {
                let found = spec.type_name();
                return Err(Fault::new(
                    list_at,
                    list_len,
                    format!("`{column}` is {found}; len() needs a list column"),
                ));
            }
            self.expect(")")?;
            self.used.insert(column.clone());
            return self.node(Expression::Length(column));
        }
        let first = self.number_here(Self::sum)?;
        let expression = match name {
            "min" | "max" => {
                self.expect(",")?;
                let second = self.number_here(Self::sum)?;
                let operation = if name == "min" { Binary::Min } else { Binary::Max };
                Expression::Binary(operation, first.into(), second.into())
            }
            "abs" => Expression::Unary(Unary::Abs, first.into()),
            "sqrt" => Expression::Unary(Unary::Sqrt, first.into()),
            "log" => Expression::Unary(Unary::Log, first.into()),
            _ => Expression::IsFinite(first.into()),
        };
        self.expect(")")?;
        self.node(expression)
    }

    fn spec(&self, name: &str, at: usize, len: usize) -> Result<&ColumnSpec, Fault> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| Fault {
            at,
            len,
            message: format!("no column `{name}`"),
            nearest: nearest(name, self.columns.iter().map(|column| column.name.as_str())),
        })
    }

    fn column(&mut self, name: &str, at: usize, len: usize) -> Result<Expression, Fault> {
        let spec = self.spec(name, at, len)?;
        let name = name.to_owned();
        let expression = match (&spec.kind, &spec.dtype) {
            (Kind::List, _) => {
                return Err(Fault::new(
                    at,
                    len,
                    format!("`{name}` is a list column; use len({name}), or a flat column"),
                ));
            }
            (Kind::Flat, DType::Other(what)) => {
                return Err(Fault::new(at, len, format!("`{name}` is {what}; only numbers can be compared")));
            }
            (Kind::Flat, DType::Bool) => Expression::BoolColumn(name.clone()),
            (Kind::Flat, dtype) if dtype.is_integer() => Expression::IntegerColumn(name.clone()),
            (Kind::Flat, _) => Expression::FloatColumn(name.clone()),
        };
        self.used.insert(name);
        self.node(expression)
    }
}

fn condition_as_number((at, len): (usize, usize)) -> Fault {
    Fault::new(at, len, "a condition where a number is expected")
}

fn require_number(expression: &Expression, place: (usize, usize)) -> Result<(), Fault> {
    if expression.is_truth() { Err(condition_as_number(place)) } else { Ok(()) }
}

fn require_truth(expression: &Expression, (at, len): (usize, usize)) -> Result<(), Fault> {
    if expression.is_truth() {
        Ok(())
    } else {
        Err(Fault::new(at, len, "a number where a condition is expected, such as `jet_pt > 500`"))
    }
}

// ---- evaluating it -------------------------------------------------------------------------------------------

/// True, false, or undecided, for each row.
type Truths = Vec<Option<bool>>;

fn truth(expression: &Expression, batch: &RecordBatch) -> Result<Truths, String> {
    let rows = batch.num_rows();
    Ok(match expression {
        Expression::Truth(value) => vec![Some(*value); rows],
        Expression::BoolColumn(name) => {
            let array = column(batch, name)?;
            let array = array.as_boolean_opt().ok_or_else(|| changed(name))?;
            array.iter().collect()
        }
        Expression::Compare(compare, left, right) => comparison(*compare, left, right, batch)?,
        Expression::SameTruth(same, left, right) => {
            let (left, right) = (truth(left, batch)?, truth(right, batch)?);
            left.into_iter().zip(right).map(|(l, r)| Some((l? == r?) == *same)).collect()
        }
        Expression::In(value, members) => {
            let mut found = vec![Some(false); rows];
            for member in members {
                let equal = comparison(Compare::Equal, value, member, batch)?;
                for (found, equal) in found.iter_mut().zip(equal) {
                    *found = either(*found, equal);
                }
            }
            found
        }
        Expression::IsFinite(value) => {
            floats(value, batch)?.into_iter().map(|value| Some(value.is_some_and(f64::is_finite))).collect()
        }
        Expression::Not(inner) => truth(inner, batch)?.into_iter().map(|value| value.map(|v| !v)).collect(),
        Expression::And(left, right) => {
            let (left, right) = (truth(left, batch)?, truth(right, batch)?);
            left.into_iter()
                .zip(right)
                .map(|(l, r)| either(l.map(|v| !v), r.map(|v| !v)).map(|v| !v))
                .collect()
        }
        Expression::Or(left, right) => {
            let (left, right) = (truth(left, batch)?, truth(right, batch)?);
            left.into_iter().zip(right).map(|(l, r)| either(l, r)).collect()
        }
        _ => return Err("a number where a condition is expected".to_owned()),
    })
}

/// Three-valued or.
fn either(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn comparison(
    compare: Compare,
    left: &Expression,
    right: &Expression,
    batch: &RecordBatch,
) -> Result<Truths, String> {
    if left.is_integer() && right.is_integer() {
        let (left, right) = (integers(left, batch)?, integers(right, batch)?);
        return Ok(left.into_iter().zip(right).map(|(l, r)| Some(compare.holds(l?.cmp(&r?)))).collect());
    }
    let (left, right) = (floats(left, batch)?, floats(right, batch)?);
    // No order with NaN: undecided, as with null.
    Ok(left
        .into_iter()
        .zip(right)
        .map(|(l, r)| l?.partial_cmp(&r?).map(|order| compare.holds(order)))
        .collect())
}

fn integers(expression: &Expression, batch: &RecordBatch) -> Result<Vec<Option<i128>>, String> {
    match expression {
        Expression::Integer(value) => Ok(vec![Some(*value); batch.num_rows()]),
        Expression::IntegerColumn(name) => integer_values(column(batch, name)?).ok_or_else(|| changed(name)),
        Expression::Length(name) => {
            let array = column(batch, name)?;
            let list = array.as_list_opt::<i32>().ok_or_else(|| changed(name))?;
            Ok((0..list.len())
                .map(|row| list.is_valid(row).then(|| i128::from(list.value_length(row))))
                .collect())
        }
        _ => Err("no integer".to_owned()),
    }
}

fn floats(expression: &Expression, batch: &RecordBatch) -> Result<Vec<Option<f64>>, String> {
    Ok(match expression {
        Expression::Integer(_) | Expression::IntegerColumn(_) | Expression::Length(_) => {
            integers(expression, batch)?.into_iter().map(|value| value.map(|v| v as f64)).collect()
        }
        Expression::Float(value) => vec![Some(*value); batch.num_rows()],
        Expression::FloatColumn(name) => float_values(column(batch, name)?).ok_or_else(|| changed(name))?,
        Expression::Unary(operation, inner) => {
            let apply = match operation {
                Unary::Negate => |value: f64| -value,
                Unary::Abs => f64::abs,
                Unary::Sqrt => f64::sqrt,
                Unary::Log => f64::ln,
            };
            floats(inner, batch)?.into_iter().map(|value| value.map(apply)).collect()
        }
        Expression::Binary(operation, left, right) => {
            let apply = match operation {
                Binary::Add => |l: f64, r: f64| l + r,
                Binary::Subtract => |l: f64, r: f64| l - r,
                Binary::Multiply => |l: f64, r: f64| l * r,
                Binary::Divide => |l: f64, r: f64| l / r,
                // A NaN on either side stays a NaN, unlike f64::min.
                Binary::Min => |l: f64, r: f64| if l.is_nan() || l < r { l } else { r },
                Binary::Max => |l: f64, r: f64| if l.is_nan() || l > r { l } else { r },
            };
            let (left, right) = (floats(left, batch)?, floats(right, batch)?);
            left.into_iter().zip(right).map(|(l, r)| Some(apply(l?, r?))).collect()
        }
        _ => return Err("a condition where a number is expected".to_owned()),
    })
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("the batch has no column `{name}`"))
}

fn changed(name: &str) -> String {
    format!("column `{name}` has another type than it was checked for")
}

/// An integer column's values, exactly.
pub(crate) fn integer_values(array: &ArrayRef) -> Option<Vec<Option<i128>>> {
    macro_rules! values {
        ($type:ty) => {
            array.as_primitive_opt::<$type>()?.iter().map(|value| value.map(i128::from)).collect()
        };
    }
    Some(match array.data_type() {
        DataType::Int8 => values!(Int8Type),
        DataType::Int16 => values!(Int16Type),
        DataType::Int32 => values!(Int32Type),
        DataType::Int64 => values!(Int64Type),
        DataType::UInt8 => values!(UInt8Type),
        DataType::UInt16 => values!(UInt16Type),
        DataType::UInt32 => values!(UInt32Type),
        DataType::UInt64 => values!(UInt64Type),
        _ => return None,
    })
}

/// A numeric column's values as f64.
pub(crate) fn float_values(array: &ArrayRef) -> Option<Vec<Option<f64>>> {
    match array.data_type() {
        DataType::Float32 => {
            Some(array.as_primitive_opt::<Float32Type>()?.iter().map(|value| value.map(f64::from)).collect())
        }
        DataType::Float64 => Some(array.as_primitive_opt::<Float64Type>()?.iter().collect()),
        _ => Some(integer_values(array)?.into_iter().map(|value| value.map(|v| v as f64)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float32Array, Int8Array, ListArray, UInt64Array};

    use super::*;
    use crate::table::schema_of;

    fn columns() -> Vec<ColumnSpec> {
        vec![
            ColumnSpec::new("jet_pt", Kind::Flat, DType::F32),
            ColumnSpec::new("process", Kind::Flat, DType::I8),
            ColumnSpec::new("event_id", Kind::Flat, DType::U64),
            ColumnSpec::new("good", Kind::Flat, DType::Bool),
            ColumnSpec::new("part_pt", Kind::List, DType::F32),
            ColumnSpec::new("name", Kind::Flat, DType::Other("Utf8".into())),
            ColumnSpec::new("2nd odd", Kind::Flat, DType::F64),
        ]
    }

    /// jet_pt 500, 600, NaN, null; process 0, 1, 2, null; event ids that f64 cannot tell apart.
    fn batch() -> RecordBatch {
        let columns: Vec<ColumnSpec> = columns().into_iter().filter(|c| c.dtype.is_readable()).collect();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Float32Array::from(vec![Some(500.0), Some(600.0), Some(f32::NAN), None])),
            Arc::new(Int8Array::from(vec![Some(0), Some(1), Some(2), None])),
            Arc::new(UInt64Array::from(vec![(1 << 60) + 1, (1 << 60) + 2, 3, u64::MAX])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), None])),
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vec![
                Some(vec![Some(1.0), Some(2.0)]),
                Some(vec![]),
                None,
                Some(vec![Some(1.0)]),
            ])),
            Arc::new(arrow::array::Float64Array::from(vec![1.0, f64::INFINITY, -4.0, 0.0])),
        ];
        RecordBatch::try_new(schema_of(&columns), arrays).unwrap()
    }

    /// One letter a row: t, f or u for undecided.
    fn verdict(text: &str) -> String {
        let selection = Selection::parse(text, &columns()).unwrap_or_else(|error| panic!("{error}"));
        let mask = selection.evaluate(&batch()).unwrap();
        mask.iter().map(|value| value.map_or('u', |v| if v { 't' } else { 'f' })).collect()
    }

    fn fault(text: &str) -> (usize, String, Vec<String>) {
        match Selection::parse(text, &columns()) {
            Err(DataError::Expression { at, message, nearest, len, .. }) => {
                assert!(len >= 1);
                (at, message, nearest)
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("`{text}` was accepted"),
        }
    }

    #[test]
    fn comparisons_and_logic() {
        assert_eq!(verdict("jet_pt > 550"), "ftuu");
        assert_eq!(verdict("not jet_pt > 550"), "tfuu");
        assert_eq!(verdict("jet_pt != 500"), "ftuu");
        assert_eq!(verdict("process in (0, 2)"), "tftu");
        assert_eq!(verdict("process not in (0, 2)"), "ftfu");
        assert_eq!(verdict("450 < jet_pt <= 500"), "tfuu");
        assert_eq!(verdict("jet_pt > 550 or process == 2"), "fttu");
        assert_eq!(verdict("jet_pt > 550 and process == 0"), "fffu");
        assert_eq!(verdict("good"), "tftu");
        assert_eq!(verdict("!good && true"), "ftfu");
        assert_eq!(verdict("good == false"), "ftfu");
        assert_eq!(verdict("is_finite(jet_pt)"), "ttff");
        assert_eq!(verdict("not is_finite(`2nd odd`)"), "ftff");
        assert_eq!(verdict("len(part_pt) >= 1"), "tfut");
        assert_eq!(verdict("true or jet_pt > 1"), "tttt");
    }

    #[test]
    fn arithmetic_binds_as_usual() {
        assert_eq!(verdict("jet_pt - 100 * 2 == 300"), "tfuu");
        assert_eq!(verdict("(jet_pt - 100) * 2 == 1_000"), "ftuu");
        assert_eq!(verdict("-process == -1"), "ftfu");
        assert_eq!(verdict("abs(-jet_pt / 1e2 + 0) == 5.0"), "tfuu");
        assert_eq!(verdict("min(jet_pt, 550) == 550"), "ftuu");
        assert_eq!(verdict("sqrt(`2nd odd`) >= 0"), "ttut");
        assert_eq!(verdict("1 / `2nd odd` > 5"), "ffft");
        assert_eq!(verdict("log(max(jet_pt, 1)) < 6.3"), "tfuu");
    }

    #[test]
    fn event_ids_compare_exactly() {
        assert_eq!(verdict("event_id == 1152921504606846977"), "tfff");
        assert_eq!(verdict("event_id in (1152921504606846978, 18446744073709551615)"), "ftft");
        assert_eq!(verdict("event_id > process"), "tttu");
    }

    #[test]
    fn faults_have_a_place() {
        let (at, message, nearest) = fault("jet_pt > 1 and jte_pt > 5");
        assert_eq!((at, nearest[0].as_str()), (15, "jet_pt"));
        assert!(message.contains("no column `jte_pt`"));
        assert_eq!(fault("jet_pt > ").0, 9);
        assert_eq!(fault("jet_pt = 5").0, 7);
        assert_eq!(fault("jet_pt").0, 0);
        assert_eq!(fault("(jet_pt > 5").0, 11);
        assert_eq!(fault("jet_pt > 5 jet_pt").0, 11);
        assert!(fault("part_pt > 5").1.contains("list column"));
        assert!(fault("len(jet_pt) > 5").1.contains("needs a list"));
        assert!(fault("name == 3").1.contains("Utf8"));
        assert!(fault("jet_pt > good").1.contains("condition"));
        assert!(fault("good + 1 > 2").1.contains("condition"));
        assert!(fault("jet_pt and good").1.contains("number where a condition"));
        assert!(fault("absolute(jet_pt) > 2").1.contains("no function"));
        assert!(fault("jet_pt > 5 # x").1.contains("unexpected character"));
        assert!(fault("2nd > 5").1.contains("backquotes"));
        assert!(fault("process in (jet_pt)").1.contains("number in the list"));
        assert!(fault("jet_pt > 99999999999999999999").1.contains("range"));
        assert_eq!(fault("").0, 0);
        assert_eq!(fault("`jet_pt > 5").0, 0);
    }

    #[test]
    fn large_expressions_are_refused_not_overflowed() {
        assert!(fault(&"(".repeat(16_000)).1.contains("deeper"));
        assert!(fault(&"-".repeat(16_000)).1.contains("deeper"));
        assert!(fault(&"not ".repeat(4_000)).1.contains("deeper"));
        assert!(fault(&format!("jet_pt > {}", vec!["1"; 5000].join("+"))).1.contains("operations"));
        assert!(fault(&"x".repeat(20_000)).1.contains("bytes"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[ a-z_0-9.<>=!&|()+*/,`éx-]{0,60}") {
            let _ = Selection::parse(&text, &columns());
        }

        #[test]
        fn no_word_salad_panics(words in proptest::collection::vec(proptest::sample::select(vec![
            "jet_pt", "process", "good", "part_pt", "(", ")", "<", ">=", "==", "and", "or", "not", "in", ",", "1",
            "2.5", "-", "*", "/", "abs(", "len(", "is_finite(", "true",
        ]), 0..14)) {
            if let Ok(selection) = Selection::parse(&words.join(" "), &columns()) {
                assert_eq!(selection.evaluate(&batch()).unwrap().len(), 4);
            }
        }
    }
}
