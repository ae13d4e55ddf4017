//! The guide for Kubernetes: the values and manifests that it shows are those of the chart.

use super::{compare, helm, read, values_file};
use crate::tools;

const GUIDE: &str = "docs/guides/kubernetes.md";

/// A block ```` ```yaml from=FILE ```` has the text of that file; `FILE#KIND` is the document of that kind in it.
#[test]
fn the_guide_shows_what_the_chart_renders() {
    let guide = read(GUIDE);
    let mut filled = String::new();
    let mut sources = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        filled.extend([line, "\n"]);
        if let Some(source) = line.strip_prefix("```yaml from=") {
            filled.push_str(&shown(source));
            filled.push_str("```\n");
            sources.push(source);
            lines.by_ref().find(|line| *line == "```").expect("the end of the block");
        }
    }
    assert!(sources.iter().any(|source| source.ends_with("#StatefulSet")), "{sources:?}");
    compare(GUIDE, &filled);
}

/// The other blocks of values are rendered in the place of what the smallest set has there.
#[test]
fn values_of_the_guide_are_rendered() {
    if !tools::wanted("helm") {
        return;
    }
    let guide = read(GUIDE);
    let blocks = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```\n").next());
    let is_values = |block: &&str| ["policies:", "tls:", "env:"].iter().any(|key| block.starts_with(key));
    let blocks: Vec<&str> = blocks.filter(is_values).collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    for block in blocks {
        std::fs::write(&file, block).unwrap();
        let replaced = match block {
            block if block.starts_with("policies:") => "policies.files=null",
            block if block.starts_with("tls:") => "tls.existingSecret=",
            _ => "replicas=1",
        };
        let (minimal, file) = (values_file("minimal"), file.to_str().unwrap());
        let args = ["--values", minimal.to_str().unwrap(), "--values", file, "--set", replaced];
        let (is_rendered, _, error) = helm(&["template", "scopeward"], &args);
        assert!(is_rendered, "{error}\n{block}");
    }
}

/// What of a file a page shows: without the comment at its top.
fn shown(source: &str) -> String {
    let (path, kind) = source.split_once('#').unwrap_or((source, ""));
    let text = read(path);
    let text = match kind {
        "" => &text,
        kind => text
            .split("---\n")
            .find(|document| document.lines().any(|line| line.strip_prefix("kind: ") == Some(kind)))
            .unwrap_or_else(|| panic!("{source}: not there")),
    };
    let lines = text.lines().skip_while(|line| line.starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}
