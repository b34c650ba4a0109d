//! Structure of exported ONNX files. What they compute is checked in ONNX Runtime by `validation/onnxruntime/check.py`.
#![allow(clippy::unwrap_used)]

use burn::tensor::Device;
use jetgraft_nn::contract::Backbone;
use jetgraft_nn::error::NnError;
use jetgraft_nn::export::onnx::{
    Description, Feature, OnnxOptions, Preprocessing, Quantity, Tensor, describe, to_onnx,
};
use jetgraft_nn::registry::BackboneConfig;
use jetgraft_nn::state::{State, state};

/// A backbone of every kind at its default sizes, with its state.
fn networks() -> Vec<(BackboneConfig, State, usize, usize, bool)> {
    BackboneConfig::KINDS
        .iter()
        .map(|kind| {
            let config: BackboneConfig = serde_json::from_value(serde_json::json!({ "kind": kind })).unwrap();
            let network = config.build(3, &Device::flex()).unwrap();
            let (features, classes) = (network.input_features(), network.classes());
            (config, state(&network), features, classes, network.needs().kinematics)
        })
        .collect()
}

fn input(name: &str, element: &str, dims: &[&str]) -> Tensor {
    let dims = dims.iter().map(|dim| (*dim).to_owned()).collect();
    Tensor { name: name.into(), element: element.into(), dims }
}

#[test]
fn every_kind_has_a_file_with_the_documented_interface() {
    for (config, state, features, classes, kinematics) in networks() {
        let bytes = to_onnx(&config, &state, &OnnxOptions::default()).unwrap();
        assert_eq!(bytes, to_onnx(&config, &state, &OnnxOptions::default()).unwrap(), "the same bytes");
        let file = describe(&bytes).unwrap();
        assert_eq!((file.ir_version, file.opset), (8, 17), "{}", config.kind());
        let (features, classes) = (features.to_string(), classes.to_string());
        let slots = if config.kind() == "lundnet" { "declusterings" } else { "constituents" };
        let mut inputs = match config.kind() {
            "mlp" => vec![input("features", "f32", &["batch", &features])],
            _ => vec![
                input("features", "f32", &["batch", slots, &features]),
                input("mask", "f32", &["batch", slots]),
            ],
        };
        if kinematics {
            inputs.push(input("kinematics", "f32", &["batch", slots, "4"]));
        }
        if config.kind() == "lundnet" {
            inputs.push(input("parents", "i64", &["batch", slots]));
        }
        assert_eq!(file.inputs, inputs, "{}", config.kind());
        let outputs = ["logits", "probabilities"].map(|name| input(name, "f32", &["batch", &classes]));
        assert_eq!(file.outputs, outputs, "{}", config.kind());
        assert!(file.metadata.contains(&("jetgraft_kind".into(), config.kind().into())));
        // Every number of the network is in the file, but running statistics, which are folded into others.
        let stored: usize = file.initialisers.iter().map(elements).sum();
        let learnt: usize = state
            .iter()
            .filter(|(name, _)| !name.contains("running_") && !name.contains("norm"))
            .map(|(_, tensor)| tensor.values.len())
            .sum();
        assert!(stored >= learnt, "{}: {stored} numbers for {learnt}", config.kind());
    }
}

fn elements(tensor: &Tensor) -> usize {
    tensor.dims.iter().map(|dim| dim.parse::<usize>().unwrap()).product()
}

/// A small LundNet whose file is known node by node.
fn small() -> (BackboneConfig, State) {
    let config: BackboneConfig = serde_json::from_value(serde_json::json!({
        "kind": "lundnet", "input_features": 2, "widths": [4, 4], "fusion": 6, "head_hidden": 5, "classes": 3
    }))
    .unwrap();
    let state = state(&config.build(1, &Device::flex()).unwrap());
    (config, state)
}

#[test]
fn initialisers_of_a_small_network() {
    let (config, state) = small();
    let file = describe(&to_onnx(&config, &state, &OnnxOptions::default()).unwrap()).unwrap();
    let found: Vec<String> = file
        .initialisers
        .iter()
        .filter(|tensor| !tensor.name.starts_with("constant."))
        .map(|tensor| format!("{} {} [{}]", tensor.name, tensor.element, tensor.dims.join(", ")))
        .collect();
    let expected = [
        "input.folded_scale f32 [2]",
        "input.folded_shift f32 [2]",
        "edge_conv.0.folded_receiver f32 [2, 4]",
        "edge_conv.0.folded_sender f32 [2, 4]",
        "edge_conv.0.folded_shift f32 [4]",
        "edge_conv.0.linear.folded_weight f32 [4, 4]",
        "edge_conv.0.linear.folded_bias f32 [4]",
        "edge_conv.0.shortcut.folded_weight f32 [2, 4]",
        "edge_conv.0.shortcut.folded_bias f32 [4]",
        "edge_conv.1.folded_receiver f32 [4, 4]",
        "edge_conv.1.folded_sender f32 [4, 4]",
        "edge_conv.1.folded_shift f32 [4]",
        "edge_conv.1.linear.folded_weight f32 [4, 4]",
        "edge_conv.1.linear.folded_bias f32 [4]",
        "fusion.linear.weight f32 [8, 6]",
        "fusion.linear.bias f32 [6]",
        "fusion.norm.folded_scale f32 [6]",
        "fusion.norm.folded_shift f32 [6]",
        "head.hidden.weight f32 [6, 5]",
        "head.hidden.bias f32 [5]",
        "head.output.weight f32 [5, 3]",
        "head.output.bias f32 [3]",
    ];
    assert_eq!(found, expected);
    assert!(!file.operators.iter().any(|operator| operator == "BatchNormalization"), "folded");
}

#[test]
fn words_travel_with_the_network() {
    let (config, state) = small();
    let options = OnnxOptions {
        name: "tagger".into(),
        classes: ["QCD", "W", "top"].map(String::from).to_vec(),
        features: ["ln_z (ln 1)", "ln_kt (ln GeV)"].map(String::from).to_vec(),
        metadata: vec![("jetgraft_card".into(), "{}".into())],
        ..OnnxOptions::default()
    };
    let Description { metadata, .. } = describe(&to_onnx(&config, &state, &options).unwrap()).unwrap();
    let expected = [
        ("jetgraft_kind", "lundnet"),
        ("classes", "[\"QCD\",\"W\",\"top\"]"),
        ("features", "[\"ln_z (ln 1)\",\"ln_kt (ln GeV)\"]"),
        ("jetgraft_card", "{}"),
    ];
    assert_eq!(metadata, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

fn refused(config: &BackboneConfig, state: &State, options: OnnxOptions) -> (String, &'static str) {
    let error = to_onnx(config, state, &options).unwrap_err();
    assert!(matches!(error, NnError::Export { .. }), "{error}");
    (error.to_string(), error.hint().unwrap())
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    let (config, mut state) = small();
    let none = OnnxOptions::default();
    let (words, remedy) = refused(
        &config,
        &state,
        OnnxOptions { preprocessing: Some(Preprocessing::default()), ..none.clone() },
    );
    assert!(words.contains("reclustering") && remedy.contains("jetgraft lund"), "{words}: {remedy}");
    refused(&config, &state, OnnxOptions { classes: vec!["QCD".into()], ..none.clone() });
    refused(&config, &state, OnnxOptions { features: vec!["ln_z".into()], ..none.clone() });
    let standardise = Some((vec![0.0, 1.0], vec![1.0, 0.0]));
    refused(&config, &state, OnnxOptions { standardise, ..none.clone() });

    let (flow, weights, ..) =
        networks().into_iter().find(|(config, ..)| config.kind() == "deep-sets").unwrap();
    let feature = Feature {
        name: "pt".into(),
        quantity: Quantity::LogPt,
        shift: 1.7,
        scale: 0.7,
        clip: Some((-5.0, 5.0)),
    };
    let one = Preprocessing { features: vec![feature.clone()], ..Preprocessing::default() };
    let (words, _) = refused(&flow, &weights, OnnxOptions { preprocessing: Some(one), ..none.clone() });
    assert!(words.contains("1 features"), "{words}");
    let seven = Preprocessing { features: vec![feature; 7], ..Preprocessing::default() };
    let bytes =
        to_onnx(&flow, &weights, &OnnxOptions { preprocessing: Some(seven), ..none.clone() }).unwrap();
    let expected = [
        input("four_vectors", "f64", &["batch", "constituents", "4"]),
        input("mask", "f32", &["batch", "constituents"]),
    ];
    assert_eq!(describe(&bytes).unwrap().inputs, expected);

    state.remove("head.output.bias");
    assert!(matches!(to_onnx(&config, &state, &none), Err(NnError::Names { .. })));
}

#[test]
fn damaged_files_are_errors_or_other_files() {
    let (config, state) = small();
    let bytes = to_onnx(&config, &state, &OnnxOptions::default()).unwrap();
    let whole = describe(&bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(describe(&bytes[..length]).map_or(true, |found| found != whole), "cut to {length}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        // A flip in the values is another file; none may panic.
        let _ = describe(&damaged);
    }
}
