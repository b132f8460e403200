//! Which metrics and labels an expression of Prometheus names, by walking the parsed expression.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::Matchers;
use promql_parser::parser::{Expr, LabelModifier, VectorSelector, parse, token};

/// Labels that come with being scraped, the last one in Kubernetes only.
const OF_TARGETS: [&str; 3] = ["job", "instance", "namespace"];

/// Labels of every metric that there is, by its name.
pub type Catalogue = BTreeMap<String, BTreeSet<String>>;

/// The labels of what an expression gives, or what it names that does not exist.
pub fn labels_of(text: &str, catalogue: &Catalogue) -> Result<BTreeSet<String>, String> {
    walk(&parse(text)?, catalogue)
}

fn walk(expr: &Expr, catalogue: &Catalogue) -> Result<BTreeSet<String>, String> {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(BTreeSet::new()),
        Expr::VectorSelector(selector) => of_selector(selector, catalogue),
        Expr::MatrixSelector(matrix) => of_selector(&matrix.vs, catalogue),
        Expr::Paren(inner) => walk(&inner.expr, catalogue),
        Expr::Unary(inner) => walk(&inner.expr, catalogue),
        Expr::Subquery(inner) => walk(&inner.expr, catalogue),
        Expr::Aggregate(aggregate) => {
            let below = walk(&aggregate.expr, catalogue)?;
            let chooses = [token::T_TOPK, token::T_BOTTOMK].contains(&aggregate.op.id());
            match &aggregate.modifier {
                None if chooses => Ok(below),
                None => Ok(BTreeSet::new()),
                Some(LabelModifier::Include(by)) => {
                    known(&by.labels, &below)?;
                    Ok(by.labels.iter().cloned().collect())
                }
                Some(LabelModifier::Exclude(without)) => {
                    known(&without.labels, &below)?;
                    Ok(below.into_iter().filter(|label| !without.labels.contains(label)).collect())
                }
            }
        }
        Expr::Binary(binary) => {
            let (left, right) = (walk(&binary.lhs, catalogue)?, walk(&binary.rhs, catalogue)?);
            let modifier = binary.modifier.as_ref();
            if let Some(LabelModifier::Include(on)) = modifier.and_then(|m| m.matching.as_ref()) {
                known(&on.labels, &left)?;
                known(&on.labels, &right)?;
            }
            let right_has_more = matches!(*binary.lhs, Expr::NumberLiteral(_));
            Ok(if right_has_more { right } else { left })
        }
        Expr::Call(call) => {
            let arguments = call.args.args.iter().map(|argument| walk(argument, catalogue));
            let mut labels: BTreeSet<String> =
                arguments.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
            if call.func.name == "label_replace"
                && let (Expr::StringLiteral(to), Expr::StringLiteral(from)) = (&*call.args.args[1], &*call.args.args[3])
            {
                known(std::slice::from_ref(&from.val), &labels)?;
                labels.insert(to.val.clone());
            }
            Ok(labels)
        }
        Expr::Extension(_) => Err("an extension".to_owned()),
    }
}

fn of_selector(selector: &VectorSelector, catalogue: &Catalogue) -> Result<BTreeSet<String>, String> {
    let name = selector.name.as_ref().ok_or("a selector without a name")?;
    let labels = catalogue.get(name).ok_or_else(|| format!("no metric {name}"))?;
    let Matchers { matchers, .. } = &selector.matchers;
    let named: Vec<_> = matchers.iter().map(|matcher| matcher.name.clone()).collect();
    known(&named, labels).map_err(|why| format!("{name}: {why}"))?;
    Ok(labels.clone())
}

fn known(named: &[String], labels: &BTreeSet<String>) -> Result<(), String> {
    match named.iter().find(|label| !labels.contains(*label) && !OF_TARGETS.contains(&label.as_str())) {
        Some(label) => Err(format!("no label {label} among {labels:?}")),
        None => Ok(()),
    }
}

#[test]
fn what_does_not_exist_is_found_wherever_it_stands() {
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let catalogue = Catalogue::from([("a".to_owned(), labels(&["x", "y"])), ("b".to_owned(), labels(&["x"]))]);
    let fine = [
        ("sum by (x) (rate(a{y=\"1\"}[5m]))", labels(&["x"])),
        ("a / on (x) group_left () b", labels(&["x", "y"])),
        ("topk(3, a)", labels(&["x", "y"])),
        ("label_replace(b, \"z\", \"$1\", \"x\", \"(.*)\") > 0", labels(&["x", "z"])),
    ];
    for (text, found) in fine {
        assert_eq!(labels_of(text, &catalogue), Ok(found), "{text}");
    }
    let wrong =
        ["c", "rate(c[5m])", "a{z=\"1\"}", "sum by (z) (a)", "a and on (y) b", "sum(a", "sum by (x) (a) * on (y) b"];
    for text in wrong {
        assert!(labels_of(text, &catalogue).is_err(), "{text}");
    }
}
