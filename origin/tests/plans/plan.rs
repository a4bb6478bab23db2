//! What a plan says about tables that grow: which of them it walks through, in either engine's words. A walk is a scan, but
//! just as much an index that is followed from some place on, past rows that a filter takes out, until enough are left: with
//! few of those wanted, it ends at the table's end.
use origin::store::Engine;

/// Tables that stay small, and names SQLite gives to what is no table.
const SMALL: [&str; 12] = [
    "log_head",
    "delivery",
    "replaced_log",
    "rail",
    "rail_item",
    "rail_place",
    "genre",
    "listing_count",
    "CONSTANT",
    "derived",
    "_sqlx",
    "",
];

/// Conditions that take few rows out: most of what is there is not deleted.
const HARMLESS: [&str; 1] = ["deleted_ms IS NULL"];

fn is_small(table: &str) -> bool {
    table.starts_with('(') || SMALL.contains(&table)
}

/// How far an index narrows what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All of it.
    Whole,
    /// From a place on, or up to one.
    OpenRange,
    /// A value, or a range with two ends.
    Narrow,
}

/// `conditions`: those an index was entered with, joined by AND.
fn reach(conditions: &str) -> Reach {
    // `@@`: a full text index has the words that are looked for.
    let is_equal = |one: &str| one.contains("@@") || one.contains('=') && !one.contains(">=") && !one.contains("<=");
    let (from, to) = (conditions.contains('>'), conditions.contains('<'));
    match conjuncts(conditions) {
        all if all.iter().any(|one| is_equal(one)) || (from && to) => Reach::Narrow,
        all if all.is_empty() => Reach::Whole,
        _ => Reach::OpenRange,
    }
}

/// What stands between the ANDs of a condition, those within brackets aside.
fn conjuncts(condition: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found) = (0usize, 0, Vec::new());
    for (at, byte) in condition.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            // Of a condition that was cut off in the middle.
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && condition.is_char_boundary(at) && condition[at..].starts_with(" AND ") {
            found.push(condition[begin..at].trim());
            begin = at + " AND ".len();
        }
    }
    found.push(condition[begin..].trim());
    found.retain(|one| !one.is_empty());
    found
}

fn unbracketed(mut text: &str) -> &str {
    while let Some(inner) = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        // "(a) AND (b)" begins and ends with brackets that are not a pair.
        let opens = |depth: i32, c| depth + i32::from(c == '(') - i32::from(c == ')');
        if inner
            .chars()
            .scan(0, |depth, c| {
                *depth = opens(*depth, c);
                Some(*depth)
            })
            .any(|depth| depth < 0)
        {
            break;
        }
        text = inner;
    }
    text
}

fn is_harmless(condition: &str) -> bool {
    let column = |one: &str| one.rsplit_once('.').map_or(one.to_string(), |(_, column)| column.to_string());
    HARMLESS.contains(&column(unbracketed(condition)).as_str())
}

/// A partial index, and the condition of the rows it has. SQLite's plans do not tell.
pub type Partial = (String, String);

/// Tables that grow, and that this plan of this statement walks through.
pub fn walked(engine: Engine, statement: &str, plan: &str, partial: &[Partial]) -> Vec<String> {
    match engine {
        Engine::Sqlite => walked_by_sqlite(statement, plan, partial),
        Engine::Postgres => walked_by_postgres(plan),
    }
}

fn walked_by_sqlite(statement: &str, plan: &str, partial: &[Partial]) -> Vec<String> {
    let mut found = Vec::new();
    let words = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let (is_limited, is_sorted) = (words.contains(" LIMIT "), plan.contains("USE TEMP B-TREE FOR ORDER BY"));
    for line in plan.lines().map(str::trim) {
        let Some((verb, rest)) = line.split_once(' ') else { continue };
        let table = rest.split(' ').next().unwrap_or_default();
        // SQLite walks a full text index by its own means, and says SCAN with the index it uses.
        if is_small(table) || line.contains("VIRTUAL TABLE INDEX") {
            continue;
        }
        let is_walk = match verb {
            "SCAN" => true,
            "SEARCH" => {
                let (index, conditions) = rest.split_once(" (").unwrap_or((rest, ""));
                let index = index.rsplit(' ').next().unwrap_or_default();
                let has = partial.iter().find(|(name, _)| name == index).map(|(_, has)| has.as_str());
                let conditions = conditions.strip_suffix(')').unwrap_or(conditions);
                let is_entered = |one: &str| conjuncts(conditions).iter().any(|by| column_of(by) == column_of(one));
                let is_left = |one: &&str| has != Some(*one) && !is_harmless(one) && !is_entered(one);
                let is_filtered = filters(&words).iter().any(is_left);
                let is_first_alone = words.contains("min(") || words.contains("max(");
                match reach(conditions) {
                    Reach::Narrow => false,
                    Reach::Whole => !is_first_alone,
                    Reach::OpenRange => is_filtered || is_sorted || !(is_limited || is_first_alone),
                }
            }
            _ => false,
        };
        if is_walk {
            found.push(table.to_string());
        }
    }
    found
}

/// What the WHERE of a statement says.
fn filters(statement: &str) -> Vec<&str> {
    let Some((_, condition)) = statement.split_once(" WHERE ") else { return Vec::new() };
    let ends = [" ORDER BY ", " GROUP BY ", " LIMIT "];
    let end = ends.iter().filter_map(|word| condition.find(word)).min().unwrap_or(condition.len());
    conjuncts(&condition[..end])
}

/// What a comparison has on its left, as plans write it.
fn column_of(condition: &str) -> String {
    let end = condition.find(['<', '>', '=']).unwrap_or(condition.len());
    condition[..end].replace(' ', "")
}

/// A line of PostgreSQL's plan with what is said of it below.
struct Node<'a> {
    depth: usize,
    what: &'a str,
    details: Vec<&'a str>,
}

fn nodes(plan: &str) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for line in plan.lines() {
        let depth = line.len() - line.trim_start().len();
        let text = line.trim();
        match (text.strip_prefix("->"), nodes.last_mut()) {
            (Some(what), _) => nodes.push(Node { depth, what: what.trim(), details: Vec::new() }),
            (None, None) => nodes.push(Node { depth, what: text, details: Vec::new() }),
            (None, Some(node)) => node.details.push(text),
        }
    }
    nodes
}

fn walked_by_postgres(plan: &str) -> Vec<String> {
    let nodes = nodes(plan);
    let mut found = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let Some((how, table)) = node.what.split_once(" on ").filter(|(how, _)| how.contains("Scan")) else { continue };
        let table = table.split_whitespace().next().unwrap_or_default();
        // An index by itself is told of by the heap scan above it.
        if is_small(table) || how.starts_with("Bitmap Index") || how.starts_with("Subquery") {
            continue;
        }
        let said = |name: &str| node.details.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let conditions =
            unbracketed(if how.starts_with("Bitmap") { said("Recheck Cond: ") } else { said("Index Cond: ") });
        let is_filtered = conjuncts(unbracketed(said("Filter: "))).into_iter().any(|one| !is_harmless(one));
        let is_walk = match reach(conditions) {
            _ if how.contains("Seq Scan") => true,
            Reach::Narrow => false,
            // Read until there are enough, each row of them being one that is wanted.
            Reach::Whole | Reach::OpenRange => is_filtered || !ends_early(&nodes[..at], node.depth),
        };
        if is_walk {
            found.push(table.to_string());
        }
    }
    found
}

/// Whether what stands above a node stops it once there is enough.
fn ends_early(above: &[Node<'_>], mut depth: usize) -> bool {
    for node in above.iter().rev() {
        if node.depth >= depth {
            continue;
        }
        depth = node.depth;
        let what = node.what;
        if what.starts_with("Limit") {
            return true;
        }
        // What takes all of it before it gives the first.
        if ["Sort", "Aggregate", "Hash", "Group", "Unique", "Finalize", "Partial"]
            .iter()
            .any(|word| what.starts_with(word))
        {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELETED: &str = "SELECT * FROM person WHERE id > $1 AND deleted_ms IS NOT NULL ORDER BY id LIMIT $2";

    #[test]
    fn a_scan_is_a_walk() {
        let sqlite = |plan| walked(Engine::Sqlite, "SELECT * FROM title", plan, &[]);
        assert_eq!(sqlite("SCAN title\nUSE TEMP B-TREE FOR ORDER BY"), ["title"]);
        assert!(sqlite("SEARCH title USING INDEX a (x=?)\nSCAN genre").is_empty());
        let postgres = |plan| walked(Engine::Postgres, "", plan, &[]);
        assert_eq!(postgres("Sort\n  ->  Seq Scan on title  (cost=1)\n        Filter: x"), ["title"]);
        assert_eq!(postgres("Sort\n  ->  Index Scan using a on title  (cost=1)"), ["title"]);
        assert!(postgres("Index Scan using a on title  (cost=1)\n  Index Cond: (x = $1)").is_empty());
        assert!(postgres("Limit\n  ->  Index Scan using a on title  (cost=1)").is_empty());
        assert_eq!(postgres("Limit\n  ->  Sort\n        ->  Index Scan using a on title  (cost=1)"), ["title"]);
    }

    #[test]
    fn an_index_followed_past_what_is_filtered_out_is_a_walk_in_spite_of_its_limit() {
        let plan = "SEARCH person USING INDEX sqlite_autoindex_person_1 (id>?)";
        assert_eq!(walked(Engine::Sqlite, DELETED, plan, &[]), ["person"]);
        let own = [("person_deleted".to_string(), "deleted_ms IS NOT NULL".to_string())];
        let plan = "SEARCH person USING INDEX person_deleted (id>?)";
        assert!(walked(Engine::Sqlite, DELETED, plan, &own).is_empty());
        let living = DELETED.replace("IS NOT NULL", "IS NULL");
        assert!(walked(Engine::Sqlite, &living, plan, &[]).is_empty());
        let other = "SELECT * FROM audit WHERE seq < $1 AND at_ms < $2 ORDER BY seq LIMIT $3";
        assert_eq!(walked(Engine::Sqlite, other, "SEARCH audit USING INDEX a (seq<?)", &[]), ["audit"]);
        let of_one = other.replace(" AND at_ms < $2", "");
        assert!(walked(Engine::Sqlite, &of_one, "SEARCH audit USING INDEX a (seq<?)", &[]).is_empty());

        let plan = |filter: &str| {
            format!(
                "Limit  (cost=1)\n  ->  Index Scan using person_pkey on person  (cost=1)\n        \
                 Index Cond: (id > $1)\n{filter}"
            )
        };
        let walked = |filter: &str| walked(Engine::Postgres, DELETED, &plan(filter), &[]);
        assert_eq!(walked("        Filter: (deleted_ms IS NOT NULL)"), ["person"]);
        assert!(walked("        Filter: (deleted_ms IS NULL)").is_empty());
        assert!(walked("").is_empty());
    }

    #[test]
    fn a_window_is_none() {
        let sqlite = "SEARCH audit USING INDEX a ((seq,n)>(?,?) AND (seq,n)<(?,?))";
        assert!(walked(Engine::Sqlite, "SELECT * FROM audit WHERE x = $1 LIMIT $2", sqlite, &[]).is_empty());
        let postgres = "Limit\n  ->  Index Scan Backward using a on audit  (cost=1)\n        \
                        Index Cond: ((seq < $1) AND (seq >= $2))\n        Filter: (mode = $3)";
        assert!(walked(Engine::Postgres, "", postgres, &[]).is_empty());
        assert_eq!(walked(Engine::Postgres, "", &postgres.replace(" AND (seq >= $2)", ""), &[]), ["audit"]);
    }
}
