# A cache of whole files in front of an origin. By default varnish fetches a whole file for a range, and lets other clients
# wait for its parts.
vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "@ORIGIN@";
}
