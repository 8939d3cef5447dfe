//! Where a field of an API error stands in the YAML that a person wrote.
//!
//! Works on block style by indentation, which is how manifests are written; for flow style and anything
//! else it answers the line of the nearest parent that it finds.

/// The line of `field` (such as `spec.containers[0].image`) in `text`, counted from 0.
pub(crate) fn line_of(text: &str, field: &str) -> usize {
    let lines: Vec<Line<'_>> =
        text.lines().enumerate().filter_map(|(number, text)| Line::parse(number, text)).collect();
    let mut scope: &[Line<'_>] = &lines;
    let mut found = lines.first().map_or(0, |line| line.number);
    for step in steps(field) {
        let Some((line, below)) = descend(scope, &step) else { break };
        found = line;
        scope = below;
    }
    found
}

enum Step {
    Key(String),
    Item(usize),
}

fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in field.trim_start_matches('.').split('.') {
        let (key, rest) = part.split_once('[').unwrap_or((part, ""));
        if !key.is_empty() {
            steps.push(Step::Key(key.to_owned()));
        }
        for index in rest.split('[') {
            let index = index.trim_end_matches(']');
            match index.parse() {
                Ok(number) => steps.push(Step::Item(number)),
                Err(_) if index.is_empty() => {}
                Err(_) => steps.push(Step::Key(index.to_owned())),
            }
        }
    }
    steps
}

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    number: usize,
    /// Column of the content; for `- key: v` the column of the dash.
    indent: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn parse(number: usize, text: &'a str) -> Option<Self> {
        let content = text.trim_start();
        (!content.is_empty() && !content.starts_with('#')).then_some(Self {
            number,
            indent: text.len() - content.len(),
            text: content,
        })
    }

    fn is_item(&self) -> bool {
        self.text == "-" || self.text.starts_with("- ")
    }

    fn has_key(&self, key: &str) -> bool {
        let bare = self.text.trim_start_matches(['"', '\'']);
        bare.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
    }
}

/// The line of `step` among the direct children of `scope`, and the lines below it.
fn descend<'a, 'b>(scope: &'b [Line<'a>], step: &Step) -> Option<(usize, &'b [Line<'a>])> {
    let indent = scope.iter().map(|line| line.indent).min()?;
    let mut items = 0;
    for (position, line) in scope.iter().enumerate() {
        let matches = match step {
            Step::Key(key) => line.indent == indent && !line.is_item() && line.has_key(key),
            Step::Item(wanted) => {
                let item = line.indent == indent && line.is_item();
                items += usize::from(item);
                item && items == wanted + 1
            }
        };
        if matches {
            let rest = &scope[position + 1..];
            // A list may stand at its key's own indentation.
            let belongs = |next: &Line<'_>| {
                next.indent > indent
                    || (matches!(step, Step::Key(_)) && next.indent == indent && next.is_item())
            };
            let length = rest.iter().take_while(|next| belongs(next)).count();
            return Some((line.number, &rest[..length]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "\
apiVersion: v1
metadata:
  name: p
spec:
  # the containers
  containers:
  - name: a
    image: x
  - name: b
    resources:
      limits:
        cpu: 1
";

    #[test]
    fn finds_nested_fields() {
        assert_eq!(line_of(POD, "metadata.name"), 2);
        assert_eq!(line_of(POD, "spec.containers[0].image"), 7);
        assert_eq!(line_of(POD, "spec.containers[1].resources.limits[cpu]"), 11);
    }

    #[test]
    fn a_missing_field_is_placed_at_its_nearest_parent() {
        assert_eq!(line_of(POD, "spec.containers[1].image"), 8);
        assert_eq!(line_of(POD, "spec.nodeName"), 3);
        assert_eq!(line_of("", "spec"), 0);
    }
}
