//! The macro that writes `new` and the setters of a configuration.

/// Defines `new`, and for each field a setter of the same name. Those after `into` also convert their argument.
macro_rules! setters {
    ($config:ident { $($field:ident: $type:ty,)* } into { $($from:ident: $target:ty,)* }) => {
        impl $config {
            /// The default options.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*

            $(
                #[doc = concat!("Sets [`", stringify!($from), "`](Self#structfield.", stringify!($from), ").")]
                #[must_use]
                pub fn $from(mut self, $from: impl Into<$target>) -> Self {
                    self.$from = $from.into();
                    self
                }
            )*
        }
    };
}

pub(crate) use setters;
