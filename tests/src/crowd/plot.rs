//! Lines over time as SVG, for people: readable on light and on dark paper, and without colours too, since each line has
//! dashes of its own.
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 34.0;

const STYLE: &str = "svg{--paper:#ffffff;--ink:#24292f;--faint:#d0d7de;--a:#0550ae;--b:#bc4c00;--c:#6e40c9;--limit:#cf222e}\
@media (prefers-color-scheme:dark){svg{--paper:#0d1117;--ink:#e6edf3;--faint:#30363d;--a:#79c0ff;--b:#ffa657;--c:#d2a8ff;--limit:#ff7b72}}\
text{fill:var(--ink);font:12px system-ui,sans-serif}.title{font-weight:600;font-size:14px}.paper{fill:var(--paper)}\
.grid{stroke:var(--faint)}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}\
.a{stroke:var(--a)}.b{stroke:var(--b);stroke-dasharray:7 3}.c{stroke:var(--c);stroke-dasharray:2 3}\
.limit{stroke:var(--limit);stroke-dasharray:10 5;stroke-width:1.2}.limit-text{fill:var(--limit)}";
const CLASSES: [&str; 3] = ["a", "b", "c"];

pub struct Plot<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    /// Name and values, evenly over the time. At most three.
    pub lines: Vec<(&'a str, Vec<f64>)>,
    /// What is wanted.
    pub limit: Option<f64>,
    pub seconds: f64,
}

/// The next of 1, 2, 5, 10, 20 … that is not below.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value * 0.999).unwrap_or(value)
}

fn number(value: f64) -> String {
    if value >= 10.0 || value == value.trunc() { format!("{value:.0}") } else { format!("{value:.2}") }
}

impl Plot<'_> {
    pub fn svg(&self) -> String {
        let values = || self.lines.iter().flat_map(|(_, values)| values.iter().copied());
        let highest = values().fold(0.0, f64::max);
        // A limit far above everything would press the lines flat; it is named in the title instead.
        let limit = self.limit.filter(|limit| *limit <= highest * 4.0);
        let top = round_up(limit.map_or(highest, |limit| highest.max(limit * 1.05))).max(1e-3);
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let y = |value: f64| TOP + height * (1.0 - value / top);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\
             <style>{STYLE}</style><rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>",
            self.title
        );
        let wanted = self.limit.map_or_else(String::new, |limit| format!(", wanted: below {}", number(limit)));
        let _ =
            write!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"20\">{} ({}{wanted})</text>", self.title, self.unit);
        for at in 0..=4 {
            let value = top * f64::from(at) / 4.0;
            let line = y(value);
            let (right, text) = (WIDTH - RIGHT, line + 4.0);
            let _ =
                write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{line:.1}\" y2=\"{line:.1}\"/>");
            let at = LEFT - 8.0;
            let _ = write!(svg, "<text x=\"{at}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>", number(value));
        }
        for at in 0..=6 {
            let part = f64::from(at) / 6.0;
            let (x, second) = (LEFT + width * part, self.seconds * part);
            let text = format!("{:.0}:{:02.0}", (second / 60.0).floor(), second % 60.0);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", HEIGHT - 12.0);
        }
        if let Some(limit) = limit {
            let (line, right) = (y(limit), WIDTH - RIGHT);
            let _ =
                write!(svg, "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{line:.1}\" y2=\"{line:.1}\"/>");
            let _ = write!(
                svg,
                "<text class=\"limit-text\" x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                line - 4.0,
                number(limit)
            );
        }
        let mut x = LEFT;
        for ((name, values), class) in self.lines.iter().zip(CLASSES) {
            let step = width / (values.len().saturating_sub(1).max(1)) as f64;
            let points: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(at, value)| format!("{:.1},{:.1}", LEFT + step * at as f64, y(value.min(top))))
                .collect();
            let _ = write!(svg, "<polyline class=\"line {class}\" points=\"{}\"/>", points.join(" "));
            let _ =
                write!(svg, "<line class=\"line {class}\" x1=\"{x:.0}\" x2=\"{:.0}\" y1=\"36\" y2=\"36\"/>", x + 26.0);
            let _ = write!(svg, "<text x=\"{:.0}\" y=\"40\">{name}</text>", x + 32.0);
            x += 50.0 + 7.0 * name.len() as f64;
        }
        svg.push_str("</svg>\n");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_all_its_points_within_its_frame() {
        let lines = vec![("p50", vec![1.0, 2.0, 3.0]), ("p95", vec![10.0, 240.0, 7.5])];
        let svg = Plot { title: "Latency", unit: "ms", lines, limit: Some(250.0), seconds: 300.0 }.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        let points = svg.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for point in points.flat_map(|points| points.split(' ')) {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y), "{point}");
        }
        assert!(svg.contains("class=\"limit\"") && svg.contains("5:00"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [(0.3, 0.5), (1.0, 1.0), (1.2, 2.0), (250.0, 500.0), (9_999.0, 10_000.0)] {
            assert_eq!(round_up(value), end, "{value}");
        }
    }
}
