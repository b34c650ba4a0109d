//! A small builder of ONNX graphs: values that know their element type, one method an operator.
//!
//! Nodes get the names of the layer they belong to and a running number; equal constants are stored once. The
//! same calls give the same bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;

use prost::Message;

use super::proto;

/// An element type of ONNX.
pub trait Element: Copy {
    /// Number in `TensorProto.DataType`.
    const CODE: i32;
    /// The same on the host.
    type Host: Copy;
    /// Little-endian bytes.
    fn bytes(values: &[Self::Host]) -> Vec<u8>;
}

/// An element type that can be added.
pub trait Number: Element {}

/// An element type with a fraction.
pub trait Float: Number {
    /// Rounds to this type.
    fn host(value: f64) -> Self::Host;
}

macro_rules! element {
    ($(#[$doc:meta] $name:ident = $code:literal, $host:ty;)+) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl Element for $name {
            const CODE: i32 = $code;
            type Host = $host;
            fn bytes(values: &[$host]) -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
        }
    )+};
}

element! {
    /// 32-bit float.
    F32 = 1, f32;
    /// 64-bit integer.
    I64 = 7, i64;
    /// Truth value, a byte.
    Bool = 9, u8;
    /// 64-bit float.
    F64 = 11, f64;
}

impl Number for F32 {}
impl Number for F64 {}
impl Number for I64 {}
impl Float for F32 {
    fn host(value: f64) -> f32 {
        value as f32
    }
}
impl Float for F64 {
    fn host(value: f64) -> f64 {
        value
    }
}

/// A value of the graph.
#[derive(Debug)]
pub struct Var<T> {
    name: Rc<str>,
    element: PhantomData<T>,
}

impl<T> Clone for Var<T> {
    fn clone(&self) -> Self {
        Self { name: Rc::clone(&self.name), element: PhantomData }
    }
}

/// Size of a dimension of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Dim {
    /// Fixed.
    Is(usize),
    /// Chosen by each call.
    Any(&'static str),
}

/// Constants that are the same bytes are one initialiser.
type ConstantKey = (i32, Vec<i64>, Vec<u8>);

#[derive(Default)]
struct Parts {
    scope: String,
    nodes: Vec<proto::Node>,
    initialisers: Vec<proto::Tensor>,
    constants: HashMap<ConstantKey, Rc<str>>,
    inputs: Vec<proto::ValueInfo>,
    outputs: Vec<proto::ValueInfo>,
}

/// The graph while it is made.
#[derive(Default)]
pub struct Builder {
    parts: RefCell<Parts>,
}

impl Builder {
    /// Names what follows after a layer.
    pub fn scope(&self, name: &str) {
        name.clone_into(&mut self.parts.borrow_mut().scope);
    }

    /// A tensor that the caller gives.
    pub fn input<T: Element>(&self, name: &str, dims: &[Dim], words: &str) -> Var<T> {
        self.parts.borrow_mut().inputs.push(value_info::<T>(name, dims, words));
        Var { name: name.into(), element: PhantomData }
    }

    /// A tensor that the caller gets.
    pub fn output<T: Element>(&self, name: &str, value: &Var<T>, dims: &[Dim], words: &str) {
        let mut parts = self.parts.borrow_mut();
        parts.nodes.push(proto::Node {
            inputs: vec![value.name.to_string()],
            outputs: vec![name.to_owned()],
            name: format!("output.{name}"),
            operator: "Identity".into(),
            attributes: Vec::new(),
        });
        parts.outputs.push(value_info::<T>(name, dims, words));
    }

    /// A weight under its own name.
    pub fn weight(&self, name: &str, shape: &[usize], values: &[f32]) -> Var<F32> {
        debug_assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        self.parts.borrow_mut().initialisers.push(proto::Tensor {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: F32::CODE,
            name: name.to_owned(),
            raw_data: F32::bytes(values),
        });
        Var { name: name.into(), element: PhantomData }
    }

    /// A constant of any shape.
    pub fn constant<T: Element>(&self, shape: &[usize], values: &[T::Host]) -> Var<T> {
        let dims: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let raw_data = T::bytes(values);
        let mut parts = self.parts.borrow_mut();
        let next = parts.constants.len();
        let Parts { constants, initialisers, .. } = &mut *parts;
        let name = constants.entry((T::CODE, dims.clone(), raw_data.clone())).or_insert_with(|| {
            let name = format!("constant.{next}");
            let tensor = proto::Tensor { dims, data_type: T::CODE, name: name.clone(), raw_data };
            initialisers.push(tensor);
            name.into()
        });
        Var { name: Rc::clone(name), element: PhantomData }
    }

    /// A number that broadcasts with anything.
    pub fn scalar<T: Float>(&self, value: f64) -> Var<T> {
        self.constant(&[], &[T::host(value)])
    }

    /// A whole number that broadcasts with anything.
    pub fn whole(&self, value: i64) -> Var<I64> {
        self.constant(&[], &[value])
    }

    /// A list of whole numbers: a shape, axes.
    pub fn list(&self, values: &[i64]) -> Var<I64> {
        self.constant(&[values.len()], values)
    }

    fn node(
        &self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<proto::Attribute>,
        outputs: usize,
    ) -> Vec<Rc<str>> {
        let mut parts = self.parts.borrow_mut();
        let name = format!("{}/{}_{}", parts.scope, operator.to_lowercase(), parts.nodes.len());
        let outputs: Vec<Rc<str>> = match outputs {
            1 => vec![name.as_str().into()],
            _ => (0..outputs).map(|place| format!("{name}.{place}").into()).collect(),
        };
        parts.nodes.push(proto::Node {
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            outputs: outputs.iter().map(ToString::to_string).collect(),
            name,
            operator: operator.to_owned(),
            attributes,
        });
        outputs
    }

    fn one<T>(&self, operator: &str, inputs: &[&str], attributes: Vec<proto::Attribute>) -> Var<T> {
        let mut outputs = self.node(operator, inputs, attributes, 1);
        Var { name: outputs.swap_remove(0), element: PhantomData }
    }
}

macro_rules! unary {
    ($($(#[$doc:meta])* $method:ident: $bound:ident = $operator:literal;)+) => {
        impl Builder {$(
            $(#[$doc])*
            pub fn $method<T: $bound>(&self, x: &Var<T>) -> Var<T> {
                self.one($operator, &[&x.name], Vec::new())
            }
        )+}
    };
}

macro_rules! binary {
    ($($(#[$doc:meta])* $method:ident: $bound:ident = $operator:literal -> $output:ty;)+) => {
        impl Builder {$(
            $(#[$doc])*
            pub fn $method<T: $bound>(&self, a: &Var<T>, b: &Var<T>) -> Var<$output> {
                self.one($operator, &[&a.name, &b.name], Vec::new())
            }
        )+}
    };
}

unary! {
    /// `max(x, 0)`.
    relu: Float = "Relu";
    /// Square root.
    sqrt: Float = "Sqrt";
    /// Natural logarithm.
    log: Float = "Log";
    /// Absolute value.
    abs: Number = "Abs";
    /// Negative.
    neg: Number = "Neg";
    /// Sine.
    sin: Float = "Sin";
    /// Nearest whole number, the even one of two.
    round: Float = "Round";
    /// Hyperbolic tangent.
    tanh: Float = "Tanh";
}

binary! {
    /// Sum, with broadcasting, as all that follow.
    add: Number = "Add" -> T;
    /// Difference.
    sub: Number = "Sub" -> T;
    /// Product by elements.
    mul: Number = "Mul" -> T;
    /// Quotient.
    div: Number = "Div" -> T;
    /// Larger one.
    max: Number = "Max" -> T;
    /// Smaller one.
    min: Number = "Min" -> T;
    /// Product of matrices in the last two dimensions.
    matmul: Float = "MatMul" -> T;
    /// `a = b`.
    equal: Number = "Equal" -> Bool;
    /// `a < b`.
    less: Number = "Less" -> Bool;
    /// `a > b`.
    greater: Number = "Greater" -> Bool;
}

impl Builder {
    /// Both.
    pub fn and(&self, a: &Var<Bool>, b: &Var<Bool>) -> Var<Bool> {
        self.one("And", &[&a.name, &b.name], Vec::new())
    }

    /// One or both.
    pub fn or(&self, a: &Var<Bool>, b: &Var<Bool>) -> Var<Bool> {
        self.one("Or", &[&a.name, &b.name], Vec::new())
    }

    /// The other truth value.
    pub fn not(&self, a: &Var<Bool>) -> Var<Bool> {
        self.one("Not", &[&a.name], Vec::new())
    }

    /// `chosen` where `condition` holds, else `other`.
    pub fn choose<T: Element>(&self, condition: &Var<Bool>, chosen: &Var<T>, other: &Var<T>) -> Var<T> {
        self.one("Where", &[&condition.name, &chosen.name, &other.name], Vec::new())
    }

    /// Another element type.
    pub fn cast<T: Element, U: Element>(&self, x: &Var<T>) -> Var<U> {
        self.one("Cast", &[&x.name], vec![int("to", U::CODE.into())])
    }

    /// Gauss error function (32-bit: ONNX Runtime has no other).
    pub fn erf(&self, x: &Var<F32>) -> Var<F32> {
        self.one("Erf", &[&x.name], Vec::new())
    }

    /// Arc tangent (32-bit: ONNX Runtime has no other).
    pub fn atan(&self, x: &Var<F32>) -> Var<F32> {
        self.one("Atan", &[&x.name], Vec::new())
    }

    /// Hyperbolic sine (32-bit: ONNX Runtime has no other).
    pub fn sinh(&self, x: &Var<F32>) -> Var<F32> {
        self.one("Sinh", &[&x.name], Vec::new())
    }

    /// Softmax along the last dimension.
    pub fn softmax(&self, x: &Var<F32>) -> Var<F32> {
        self.one("Softmax", &[&x.name], vec![int("axis", -1)])
    }

    /// `max(x, slope x)`.
    pub fn leaky_relu(&self, x: &Var<F32>, slope: f32) -> Var<F32> {
        self.one("LeakyRelu", &[&x.name], vec![float("alpha", slope)])
    }

    /// Normalisation of the last dimension.
    pub fn layer_norm(&self, x: &Var<F32>, scale: &Var<F32>, shift: &Var<F32>, epsilon: f32) -> Var<F32> {
        let attributes = vec![int("axis", -1), float("epsilon", epsilon)];
        self.one("LayerNormalization", &[&x.name, &scale.name, &shift.name], attributes)
    }

    /// Sizes.
    pub fn shape<T: Element>(&self, x: &Var<T>) -> Var<I64> {
        self.one("Shape", &[&x.name], Vec::new())
    }

    /// One size of a value, as a list of one.
    pub fn size<T: Element>(&self, x: &Var<T>, axis: i64) -> Var<I64> {
        self.gather(&self.shape(x), &self.list(&[axis]), 0)
    }

    /// `0, 1, .. count - 1` of a list of one.
    pub fn range(&self, count: &Var<I64>) -> Var<I64> {
        let count = self.reshape(count, &self.list(&[]));
        self.one("Range", &[&self.whole(0).name, &count.name, &self.whole(1).name], Vec::new())
    }

    /// Other sizes, the same elements; 0 keeps a size, -1 is what is left.
    pub fn reshape<T: Element>(&self, x: &Var<T>, shape: &Var<I64>) -> Var<T> {
        self.one("Reshape", &[&x.name, &shape.name], Vec::new())
    }

    /// [`Builder::reshape`] with known sizes.
    pub fn reshape_to<T: Element>(&self, x: &Var<T>, shape: &[i64]) -> Var<T> {
        self.reshape(x, &self.list(shape))
    }

    /// New dimensions of size 1.
    pub fn unsqueeze<T: Element>(&self, x: &Var<T>, axes: &[i64]) -> Var<T> {
        self.one("Unsqueeze", &[&x.name, &self.list(axes).name], Vec::new())
    }

    /// Without dimensions of size 1.
    pub fn squeeze<T: Element>(&self, x: &Var<T>, axes: &[i64]) -> Var<T> {
        self.one("Squeeze", &[&x.name, &self.list(axes).name], Vec::new())
    }

    /// Dimensions in another order.
    pub fn transpose<T: Element>(&self, x: &Var<T>, order: &[i64]) -> Var<T> {
        self.one("Transpose", &[&x.name], vec![ints("perm", order)])
    }

    /// Repeated to a shape.
    pub fn expand<T: Element>(&self, x: &Var<T>, shape: &Var<I64>) -> Var<T> {
        self.one("Expand", &[&x.name, &shape.name], Vec::new())
    }

    /// Side by side.
    pub fn concat<T: Element>(&self, values: &[&Var<T>], axis: i64) -> Var<T> {
        if let [value] = values {
            return (*value).clone();
        }
        let names: Vec<&str> = values.iter().map(|value| &*value.name).collect();
        self.one("Concat", &names, vec![int("axis", axis)])
    }

    /// Entries `from..to` of one dimension.
    pub fn slice<T: Element>(&self, x: &Var<T>, axis: i64, from: i64, to: i64) -> Var<T> {
        let [from, to, axis] = [from, to, axis].map(|value| self.list(&[value]));
        self.one("Slice", &[&x.name, &from.name, &to.name, &axis.name], Vec::new())
    }

    /// Two equal parts of one dimension.
    pub fn halves<T: Element>(&self, x: &Var<T>, axis: i64) -> [Var<T>; 2] {
        let mut outputs = self.node("Split", &[&x.name], vec![int("axis", axis)], 2);
        let second = Var { name: outputs.swap_remove(1), element: PhantomData };
        [Var { name: outputs.swap_remove(0), element: PhantomData }, second]
    }

    /// The entries with these numbers.
    pub fn gather<T: Element>(&self, x: &Var<T>, indices: &Var<I64>, axis: i64) -> Var<T> {
        self.one("Gather", &[&x.name, &indices.name], vec![int("axis", axis)])
    }

    /// Sums over dimensions, which keep the size 1.
    pub fn reduce_sum<T: Number>(&self, x: &Var<T>, axes: &[i64]) -> Var<T> {
        self.one("ReduceSum", &[&x.name, &self.list(axes).name], vec![int("keepdims", 1)])
    }

    /// The `count` (a list of one) smallest entries of the last dimension in rising order, and their numbers.
    pub fn smallest<T: Float>(&self, x: &Var<T>, count: &Var<I64>) -> (Var<T>, Var<I64>) {
        let attributes = vec![int("axis", -1), int("largest", 0), int("sorted", 1)];
        let mut outputs = self.node("TopK", &[&x.name, &count.name], attributes, 2);
        let indices = Var { name: outputs.swap_remove(1), element: PhantomData };
        (Var { name: outputs.swap_remove(0), element: PhantomData }, indices)
    }

    /// The bytes of a file.
    pub fn finish(self, name: &str, words: &str, metadata: &[(String, String)]) -> Vec<u8> {
        let Parts { nodes, initialisers, inputs, outputs, .. } = self.parts.into_inner();
        let graph = proto::Graph {
            nodes,
            name: name.to_owned(),
            initialisers,
            doc_string: words.to_owned(),
            inputs,
            outputs,
        };
        proto::Model {
            ir_version: proto::IR_VERSION,
            producer_name: "jetgraft".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: words.to_owned(),
            graph: Some(graph),
            opset_import: vec![proto::OperatorSet { domain: String::new(), version: proto::OPSET }],
            metadata: metadata
                .iter()
                .map(|(key, value)| proto::Entry { key: key.clone(), value: value.clone() })
                .collect(),
        }
        .encode_to_vec()
    }
}

fn int(name: &str, value: i64) -> proto::Attribute {
    proto::Attribute { name: name.into(), int: Some(value), kind: proto::INT, ..Default::default() }
}

fn ints(name: &str, values: &[i64]) -> proto::Attribute {
    proto::Attribute { name: name.into(), ints: values.to_vec(), kind: proto::INTS, ..Default::default() }
}

fn float(name: &str, value: f32) -> proto::Attribute {
    proto::Attribute { name: name.into(), float: Some(value), kind: proto::FLOAT, ..Default::default() }
}

fn value_info<T: Element>(name: &str, dims: &[Dim], words: &str) -> proto::ValueInfo {
    let dims = dims
        .iter()
        .map(|dim| match *dim {
            Dim::Is(size) => proto::Dimension { value: Some(size as i64), name: None },
            Dim::Any(name) => proto::Dimension { value: None, name: Some(name.to_owned()) },
        })
        .collect();
    let tensor = proto::TensorType { element: T::CODE, shape: Some(proto::Shape { dims }) };
    proto::ValueInfo {
        name: name.to_owned(),
        kind: Some(proto::Type { tensor: Some(tensor) }),
        doc_string: words.to_owned(),
    }
}
