//! Figures from inputs that look like a study: shape of the SVG, snapshots, pixels, faults.

#[path = "../examples/gallery/synthetic.rs"]
#[allow(dead_code)]
mod synthetic;

use jetgraft_report::figure::*;
use jetgraft_report::plot::scale::Scale;
use jetgraft_report::{Figure, ReportError};
use resvg::tiny_skia::Pixmap;
use resvg::usvg::roxmltree::Document;

fn sums(values: &[f64], by: usize) -> Vec<f64> {
    values.chunks(by).map(|c| c.iter().sum()).collect()
}

fn every<T: Copy>(values: &[T], by: usize) -> Vec<T> {
    values.iter().copied().step_by(by).collect()
}

/// The synthetic study with few points and coarse bins, so that a snapshot can be read.
fn small() -> Vec<Figure> {
    let mut efficiency = synthetic::data_efficiency_input();
    efficiency.metrics.truncate(2);
    efficiency.metrics.iter_mut().flat_map(|m| &mut m.plans).for_each(|p| p.fit.clear());
    let mut roc_input = synthetic::roc_input();
    roc_input.curves.iter_mut().for_each(|c| c.points = every(&c.points, 10));
    let mut loss_input = synthetic::loss_input();
    for curve in &mut loss_input.curves {
        curve.training = every(&curve.training, 5);
        curve.validation = every(&curve.validation, 5);
    }
    let mut scores_input = synthetic::scores_input();
    scores_input.edges = every(&scores_input.edges, 4);
    for plan in &mut scores_input.plans {
        plan.signal = sums(&plan.signal, 4);
        plan.background = sums(&plan.background, 4);
    }
    let mut lund_input = synthetic::lund_input();
    lund_input.x_edges = every(&lund_input.x_edges, 6);
    lund_input.y_edges = every(&lund_input.y_edges, 6);
    for class in &mut lund_input.classes {
        let mut cells = vec![0.0; 36];
        for (i, n) in class.emissions.iter().enumerate() {
            cells[(i / 36) / 6 * 6 + (i % 36) / 6] += n;
        }
        class.emissions = cells;
    }
    let mut mass = synthetic::mass_input();
    mass.edges = every(&mass.edges, 3);
    mass.before = sums(&mass.before, 3);
    mass.cuts.iter_mut().for_each(|c| c.after = sums(&c.after, 3));
    vec![
        data_efficiency(&efficiency).expect("data efficiency"),
        roc(&roc_input).expect("roc"),
        loss(&loss_input).expect("loss"),
        scores(&scores_input).expect("scores"),
        lund_plane(&lund_input).expect("lund plane"),
        mass_sculpting(&mass).expect("mass sculpting"),
    ]
}

#[test]
fn snapshots() {
    for figure in small() {
        let shown: String = figure.page_svgs().into_iter().map(|(svg, _)| svg).collect();
        insta::assert_snapshot!(figure.id.clone(), format!("{}\n\n{shown}", figure.caption));
    }
}

/// Every file is well-formed XML with title and description, and no coordinate that is not a number.
fn assert_sound(figure: &Figure) {
    let file = figure.svg();
    let pages = figure.page_svgs().into_iter().map(|(svg, _)| svg);
    for svg in pages.chain([file]) {
        let document = Document::parse(&svg).unwrap_or_else(|e| panic!("{}: {e}", figure.id));
        for node in document.descendants().filter(|n| n.is_element()) {
            for attribute in node.attributes() {
                let (name, value) = (attribute.name(), attribute.value());
                if !name.starts_with("aria") {
                    assert!(
                        !value.contains("NaN") && !value.contains("inf"),
                        "{}: {name}={value}",
                        figure.id
                    );
                }
            }
        }
        assert!(document.root_element().attribute("role") == Some("img"));
        let named = document.descendants().any(|n| n.tag_name().name() == "title" && n.text().is_some());
        let described = document.descendants().any(|n| n.tag_name().name() == "desc" && n.text().is_some());
        assert!(named && described, "{}", figure.id);
        // Each reference has its target, and ids are unique.
        let ids: Vec<&str> = document.descendants().filter_map(|n| n.attribute("id")).collect();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(ids.len(), sorted.len(), "{}", figure.id);
        for node in document.descendants() {
            if let Some(target) = node.attribute("href") {
                assert!(ids.contains(&&target[1..]), "{target}");
            }
        }
    }
}

#[test]
fn files_are_sound() {
    for figure in small().iter().chain(&synthetic::figures().expect("figures")) {
        assert_sound(figure);
        assert!(figure.svg().starts_with("<svg xmlns"));
        assert!(!figure.svg().contains("<text"), "files draw text as outlines");
        assert!(!figure.svg().contains("var("), "files need no style sheet");
        let caption = figure.description();
        assert!(caption.ends_with('.') && caption.matches(". ").count() == 0, "one sentence: {caption}");
    }
}

#[test]
fn png_is_readable_and_not_blank() {
    for figure in small() {
        let pixels = Pixmap::decode_png(&figure.png(1.0).expect("png")).expect("a PNG");
        let colours: std::collections::BTreeSet<[u8; 3]> =
            pixels.pixels().iter().map(|p| [p.red(), p.green(), p.blue()]).collect();
        assert!(colours.len() > 20, "{}: {} colours", figure.id, colours.len());
        let white =
            pixels.pixels().iter().filter(|p| (p.red(), p.green(), p.blue()) == (255, 255, 255)).count();
        let share = white as f64 / pixels.pixels().len() as f64;
        assert!((0.2..0.98).contains(&share), "{}: {share} white", figure.id);
        let double = Pixmap::decode_png(&figure.png(2.0).expect("png")).expect("a PNG");
        assert!(double.width().abs_diff(2 * pixels.width()) <= 1);
    }
}

#[test]
fn impossible_png_scales_are_errors() {
    let figure = &small()[0];
    for scale in [0.0, -1.0, f64::NAN, 1e6] {
        assert!(matches!(figure.png(scale), Err(ReportError::Raster { .. })), "{scale}");
    }
}

#[test]
fn main_and_ratio_panel_have_one_x_axis() {
    // Frames are the closed four-cornered strokes; clip windows have the same numbers.
    for figure in [&small()[1], &small()[5]] {
        let svg = figure.svg();
        let document = Document::parse(&svg).expect("xml");
        let windows: Vec<(&str, &str)> = document
            .descendants()
            .filter(|n| n.has_tag_name(("http://www.w3.org/2000/svg", "rect")))
            .filter(|n| n.parent().is_some_and(|p| p.tag_name().name() == "clipPath"))
            .map(|n| (n.attribute("x").unwrap_or("?"), n.attribute("width").unwrap_or("?")))
            .collect();
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[0], windows[1], "{}", figure.id);
    }
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "<script>alert(1)</script>\"'&_{x}^{y}\\it{z}\u{0}\u{1b}";
    let mut efficiency = synthetic::data_efficiency_input();
    let mut roc_input = synthetic::roc_input();
    let mut loss_input = synthetic::loss_input();
    let mut scores_input = synthetic::scores_input();
    let mut lund_input = synthetic::lund_input();
    let mut mass = synthetic::mass_input();
    for context in [
        &mut efficiency.context,
        &mut roc_input.context,
        &mut loss_input.context,
        &mut scores_input.context,
        &mut lund_input.context,
        &mut mass.context,
    ] {
        context.data = hostile.into();
        context.selection = vec![hostile.into()];
    }
    efficiency.metrics[0].plans[0].plan = hostile.into();
    efficiency.metrics[0].metric = Metric::Named { title: hostile.into(), name: hostile.into(), log: false };
    roc_input.curves[0].plan = hostile.into();
    roc_input.reference = Some(hostile.into());
    loss_input.curves[0].plan = hostile.into();
    loss_input.title = hostile.into();
    scores_input.plans[0].plan = hostile.into();
    scores_input.signal = hostile.into();
    lund_input.classes[0].name = hostile.into();
    lund_input.emissions = hostile.into();
    lund_input.ratio = None;
    mass.cuts[0].plan = hostile.into();
    mass.background = hostile.into();
    for figure in [
        data_efficiency(&efficiency),
        roc(&roc_input),
        loss(&loss_input),
        scores(&scores_input),
        lund_plane(&lund_input),
        mass_sculpting(&mass),
    ] {
        let figure = figure.expect("a figure");
        assert_sound(&figure);
        for (svg, _) in figure.page_svgs() {
            assert!(!svg.contains("<script"), "{}", figure.id);
        }
    }
}

/// What a study with trouble may hold: limits, missing values, a single size, a single bin.
#[test]
fn odd_numbers_can_be_drawn() {
    let mut efficiency = synthetic::data_efficiency_input();
    let limit = Estimate::new(f64::INFINITY, 55.0, f64::INFINITY);
    let nothing = Estimate::new(f64::NAN, f64::NAN, f64::NAN);
    efficiency.metrics[1].plans[0].points[0].score = limit;
    efficiency.metrics[1].plans[1].points[1].score = nothing;
    efficiency.metrics[2].plans.iter_mut().for_each(|p| p.points.truncate(1));
    efficiency.metrics[0].plans.iter_mut().flat_map(|p| &mut p.points).for_each(|p| p.score = nothing);
    assert_sound(&data_efficiency(&efficiency).expect("data efficiency"));

    let mut roc_input = synthetic::roc_input();
    for point in roc_input.curves.iter_mut().flat_map(|c| &mut c.points).take(60) {
        point.rejection = limit;
    }
    assert_sound(&roc(&roc_input).expect("roc"));
    roc_input.curves.iter_mut().for_each(|c| c.points.truncate(1));
    assert_sound(&roc(&roc_input).expect("roc"));

    let mut loss_input = synthetic::loss_input();
    loss_input.scale = Scale::Log;
    loss_input.curves[0].validation[3].loss = nothing;
    loss_input.curves[1].validation.clear();
    loss_input.curves[2].chosen_epoch = Some(1e9);
    assert_sound(&loss(&loss_input).expect("loss"));

    let mut mass = synthetic::mass_input();
    mass.before[10] = 0.0;
    mass.cuts[0].js_distance = nothing;
    assert_sound(&mass_sculpting(&mass).expect("mass"));
}

#[test]
fn missing_parts_are_typed_errors() {
    let empty = |result: Result<Figure, ReportError>| matches!(result, Err(ReportError::Empty { .. }));
    let mut input = synthetic::data_efficiency_input();
    input.metrics[0].plans[0].points.clear();
    assert!(empty(data_efficiency(&input)));
    input.metrics.clear();
    assert!(empty(data_efficiency(&input)));

    let mut input = synthetic::roc_input();
    input.reference = Some("nobody".into());
    let error = roc(&input).expect_err("no such plan");
    assert_eq!(error.to_string(), "roc: no plan `nobody`; known: scratch, fine-tune, frozen");
    input.curves.clear();
    assert!(empty(roc(&input)));

    let mut input = synthetic::loss_input();
    input.curves[0].training.reverse();
    assert!(matches!(loss(&input), Err(ReportError::NotIncreasing { index: 1, .. })));
    input.curves.clear();
    assert!(empty(loss(&input)));

    let mut input = synthetic::scores_input();
    input.plans[0].signal.pop();
    assert!(matches!(scores(&input), Err(ReportError::Length { found: 39, expected: 40, .. })));
    input.plans[0].signal.push(-1.0);
    assert!(matches!(scores(&input), Err(ReportError::Value { .. })));
    input.plans[0].signal.fill(0.0);
    assert!(empty(scores(&input)));

    let mut input = synthetic::lund_input();
    input.classes[0].jets = 0;
    assert!(empty(lund_plane(&input)));
    input.x_edges.truncate(1);
    assert!(empty(lund_plane(&input)));

    let mut input = synthetic::mass_input();
    input.edges[3] = input.edges[2];
    assert!(matches!(mass_sculpting(&input), Err(ReportError::NotIncreasing { index: 3, .. })));
    input.cuts.clear();
    assert!(empty(mass_sculpting(&input)));
}

#[test]
fn inputs_survive_json() {
    let input = synthetic::roc_input();
    let text = serde_json::to_string(&input).expect("json");
    assert_eq!(serde_json::from_str::<Roc>(&text).expect("json"), input);
    let input = synthetic::data_efficiency_input();
    let text = serde_json::to_string(&input).expect("json");
    assert_eq!(serde_json::from_str::<DataEfficiency>(&text).expect("json"), input);
}

/// The same input gives the same bytes.
#[test]
fn drawing_is_deterministic() {
    for (a, b) in small().iter().zip(small()) {
        assert_eq!(a.svg(), b.svg());
        assert_eq!(a.png(1.0).expect("png"), b.png(1.0).expect("png"));
    }
}
