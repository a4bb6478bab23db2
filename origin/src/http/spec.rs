//! Routes together with their description: one call adds both, so that none is served undescribed. The description is
//! OpenAPI 3.1, made of the types that are read and written.
use super::App;
use axum::Router;
use axum::routing::MethodRouter;
use std::collections::BTreeSet;
use utoipa::ToSchema;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, Schema};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, ContentBuilder, HeaderBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref,
    RefOr, Required, ResponseBuilder, Type,
};

/// What operations are listed under, in this order.
const TAGS: [(&str, &str); 14] = [
    ("client", "Documents for all viewers, by region, language, age and plan; the edge keeps them"),
    ("viewer", "What is one viewer's own"),
    ("accounts", "Registering, logging in, sessions, passwords; and the keys that verify tokens"),
    ("titles", "Films and series, as editors keep them"),
    ("seasons", "Seasons of a series, each with its episodes"),
    ("people", "Who takes part in titles"),
    ("genres", "Names of genres"),
    ("rails", "Rows of the home page"),
    ("collections", "Titles an editor put together"),
    ("purges", "Purges by hand, and how far every purge has come"),
    ("audit", "Who changed what"),
    ("users", "Viewers' accounts, for admins"),
    ("staff", "Accounts of the staff, for admins"),
    ("operators", "Health and metrics; the edge does not route here"),
];

/// Routes, and what they are.
pub struct Api {
    pub router: Router<App>,
    paths: PathsBuilder,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// What one method of one path does.
pub struct Op {
    operation: OperationBuilder,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// A schema by name, and all it needs.
fn named<T: ToSchema>(into: &mut Vec<(String, RefOr<Schema>)>) -> RefOr<Schema> {
    T::schemas(into);
    let name = T::name().to_string();
    into.push((name.clone(), T::schema()));
    RefOr::Ref(Ref::from_schema_name(name))
}

pub fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

pub fn pattern(pattern: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

pub fn integer(min: i64, max: i64) -> RefOr<Schema> {
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    number.minimum(Some(min)).maximum(Some(max)).into()
}

pub fn one_of(words: &[&str]) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).into()
}

fn parameter(name: &str, place: ParameterIn, schema: RefOr<Schema>, says: &str) -> Parameter {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
    parameter.schema(Some(schema)).description(Some(says)).build()
}

impl Op {
    pub fn new(tag: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().tag(tag).summary(Some(summary));
        Self { operation, schemas: Vec::new() }
    }

    pub fn says(mut self, text: &str) -> Self {
        self.operation = self.operation.description(Some(text));
        self
    }

    pub fn path(mut self, name: &str, schema: RefOr<Schema>) -> Self {
        self.operation = self.operation.parameter(parameter(name, ParameterIn::Path, schema, ""));
        self
    }

    pub fn id(self) -> Self {
        self.path("id", pattern("^[a-z0-9]([a-z0-9-]{0,78}[a-z0-9])?$"))
    }

    pub fn query(mut self, name: &str, schema: RefOr<Schema>, says: &str) -> Self {
        self.operation = self.operation.parameter(parameter(name, ParameterIn::Query, schema, says));
        self
    }

    pub fn field(mut self, name: &str, schema: RefOr<Schema>, says: &str) -> Self {
        self.operation = self.operation.parameter(parameter(name, ParameterIn::Header, schema, says));
        self
    }

    /// Needs an admin token.
    pub fn staff(mut self) -> Self {
        let needed = utoipa::openapi::security::SecurityRequirement::new("staff", Vec::<String>::new());
        self.operation = self.operation.security(needed);
        self.problems(&[(401, "The token is missing or refused"), (403, "The role does not allow it")])
    }

    /// Needs a viewer's access token.
    pub fn signed_in(mut self) -> Self {
        let needed = utoipa::openapi::security::SecurityRequirement::new("viewer", Vec::<String>::new());
        self.operation = self.operation.security(needed);
        self.problems(&[(401, "The token is missing or refused, or its session is over")])
    }

    /// Answers differ by viewer: the edge sends who it is for.
    pub fn viewer(self, fields: &[&str]) -> Self {
        let words = [
            ("Viewer-Region", pattern("^[A-Z]{2}$"), "ISO 3166-1 alpha-2; ZZ: another"),
            ("Viewer-Locale", pattern("^[a-z]{2,3}$"), "Primary language tag"),
            ("Viewer-Maturity", one_of(&["0", "7", "13", "16", "18"]), "Highest age class the viewer may see"),
            ("Viewer-Plan", one_of(&["none", "basic", "standard", "premium"]), "What the viewer pays for"),
        ];
        let wanted = words.into_iter().filter(|(name, ..)| fields.contains(name));
        let seal = "The edge's proof of these fields (HMAC-SHA256), where this service has its secret";
        let op = wanted.fold(self, |op, (name, schema, says)| op.field(name, schema, says));
        op.field("Viewer-Seal", text(), seal)
    }

    pub fn body<T: ToSchema>(mut self, media: &[&str]) -> Self {
        let schema = named::<T>(&mut self.schemas);
        self.body_of(schema, media)
    }

    /// A part of such a thing (RFC 7396).
    pub fn patch_body(self) -> Self {
        let schema = ObjectBuilder::new().description(Some("JSON Merge Patch (RFC 7396): what is to change")).into();
        self.body_of(schema, &["application/merge-patch+json", "application/json"])
    }

    fn body_of(mut self, schema: RefOr<Schema>, media: &[&str]) -> Self {
        let mut body = RequestBodyBuilder::new().required(Some(Required::True));
        for media in media {
            body = body.content(*media, ContentBuilder::new().schema(Some(schema.clone())).build());
        }
        self.operation = self.operation.request_body(Some(body.build()));
        self.problems(&[
            (400, "The request is malformed"),
            (413, "The body is too large"),
            (415, "The body's media type is not taken"),
            (422, "The content has faults, each named by its JSON Pointer; nothing was changed"),
        ])
    }

    pub fn answer<T: ToSchema>(mut self, status: u16, says: &str) -> Self {
        let schema = named::<T>(&mut self.schemas);
        self.answer_of(status, says, schema, "application/json")
    }

    /// A list with a cursor.
    pub fn page<T: ToSchema>(mut self, says: &str) -> Self {
        let item = named::<T>(&mut self.schemas);
        let page = ObjectBuilder::new()
            .property("items", ArrayBuilder::new().items(item))
            .property(
                "next_cursor",
                ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::SchemaType::from_iter([Type::String, Type::Null])),
            )
            .required("items");
        self.answer_of(200, says, page.into(), "application/json")
    }

    fn answer_of(mut self, status: u16, says: &str, schema: RefOr<Schema>, media: &str) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let state = HeaderBuilder::new().description(Some("The state of the log: `<log_id>:<seq>`")).build();
        let mut response = ResponseBuilder::new().description(says).content(media, content);
        if status < 300 {
            response = response.header("Surrogate-As-Of", state);
        }
        self.operation = self.operation.response(status.to_string(), response.build());
        self
    }

    /// An answer of another media type than JSON.
    pub fn answer_as(self, status: u16, says: &str, media: &str, schema: RefOr<Schema>) -> Self {
        self.answer_of(status, says, schema, media)
    }

    /// An answer without content.
    pub fn empty(mut self, status: u16, says: &str) -> Self {
        self.operation = self.operation.response(status.to_string(), ResponseBuilder::new().description(says).build());
        self
    }

    /// Answers in problem+json.
    pub fn problems(mut self, problems: &[(u16, &str)]) -> Self {
        for (status, says) in problems {
            let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
            self = self.answer_of(*status, says, schema, kv_schemas::header::PROBLEM_JSON);
        }
        self
    }
}

/// As kv-schemas writes it.
fn problem() -> RefOr<Schema> {
    let fault = ObjectBuilder::new().property("at", text()).property("message", text());
    let faults = ArrayBuilder::new().items(fault.required("at").required("message"));
    let problem = ObjectBuilder::new()
        .description(Some("RFC 9457 problem details; `errors` names every fault of the input by where it stands"))
        .property("type", text())
        .property("title", text())
        .property("status", integer(400, 599))
        .property("detail", text())
        .property("errors", faults);
    problem.required("type").required("title").required("status").into()
}

impl Api {
    pub fn new() -> Self {
        Self { router: Router::new(), paths: PathsBuilder::new(), schemas: Vec::new() }
    }

    /// `route`: what serves this method.
    pub fn add(mut self, method: HttpMethod, path: &str, route: MethodRouter<App>, op: Op) -> Self {
        let op = op.problems(&[
            (500, "The service failed"),
            (503, "The service is busy, or has not reached the state that is demanded; try again"),
        ]);
        let op = match method {
            HttpMethod::Get => op,
            // Any call that may have a body may have one that is too long, or that does not come.
            _ => op.problems(&[
                (408, "The body did not come in time"),
                (413, "The body is too large"),
                (507, "There is no room left to store anything; nothing was changed"),
            ]),
        };
        let mut operation: Operation = op.operation.build();
        let word: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let verb = match method {
            HttpMethod::Get => "get",
            HttpMethod::Post => "post",
            HttpMethod::Put => "put",
            HttpMethod::Patch => "patch",
            HttpMethod::Delete => "delete",
            _ => "other",
        };
        operation.operation_id = Some(format!("{verb}{word}"));
        self.paths = self.paths.path(path, PathItem::new(method, operation));
        self.schemas.extend(op.schemas);
        self.router = self.router.route(path, route);
        self
    }

    /// Describes these too, and gives their routes.
    pub fn describe(&mut self, other: Self) -> Router<App> {
        for (path, item) in other.paths.build().paths {
            self.paths = std::mem::take(&mut self.paths).path(path, item);
        }
        self.schemas.extend(other.schemas);
        other.router
    }

    pub fn merge(mut self, other: Self) -> Self {
        let router = self.describe(other);
        self.router = self.router.merge(router);
        self
    }

    /// The description of all that was added.
    pub fn end(self) -> OpenApi {
        let mut components = Components::new();
        components.schemas.extend(self.schemas);
        components.schemas.insert("Problem".into(), problem());
        for (name, says) in [
            ("staff", "An admin token: `origin token`, or `POST /auth/staff/login`"),
            ("viewer", "A viewer's access token: `POST /auth/login`"),
        ] {
            let bearer = utoipa::openapi::security::HttpBuilder::new()
                .scheme(utoipa::openapi::security::HttpAuthScheme::Bearer)
                .bearer_format("JWT")
                .description(Some(says));
            let scheme = utoipa::openapi::security::SecurityScheme::Http(bearer.build());
            components.security_schemes.insert(name.into(), RefOr::T(scheme));
        }
        let info = InfoBuilder::new()
            .title("Nextream origin")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "Viewers' apps read `/v1` through the edge, which says in `Viewer-*` whom an answer is for and keeps answers by \
                 it; editors write `/admin/v1`. Every write answers with the state it made (`Surrogate-As-Of`), which a reader \
                 can demand (`Min-As-Of`). Errors are RFC 9457 problem details.",
            ))
            .build();
        let paths = self.paths.build();
        // A process with some of the roles lists what it has.
        let used: BTreeSet<String> = paths
            .paths
            .values()
            .flat_map(|item| [&item.get, &item.put, &item.post, &item.delete, &item.patch])
            .flatten()
            .flat_map(|operation| operation.tags.clone().unwrap_or_default())
            .collect();
        let tags = TAGS.iter().filter(|(name, _)| used.contains(*name));
        let tags = tags.map(|(name, says)| TagBuilder::new().name(*name).description(Some(*says)).build());
        let tags: Vec<_> = tags.collect();
        OpenApiBuilder::new().info(info).tags(Some(tags)).paths(paths).components(Some(components)).build()
    }
}
