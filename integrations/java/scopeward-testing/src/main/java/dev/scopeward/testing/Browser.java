package dev.scopeward.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** A person with a browser: follows redirects, logs in, agrees, until it is sent to the client's redirect URI. */
public final class Browser {
    /** Where clients of the tests are sent back to. Nobody listens there. */
    public static final String REDIRECT_URI = "http://127.0.0.1:33418/callback";

    private static final Pattern FORM = Pattern.compile("<form\\b([^>]*)>(.*?)</form>", Pattern.DOTALL);
    private static final Pattern FIELD = Pattern.compile("<(?:input|button)\\b([^>]*)>", Pattern.DOTALL);
    private static final Pattern ATTRIBUTE = Pattern.compile("([a-zA-Z-]+)\\s*=\\s*\"([^\"]*)\"");

    private final HttpClient http =
            HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).followRedirects(HttpClient.Redirect.NEVER).build();
    private final Map<String, String> cookies = new LinkedHashMap<>();
    private final String user;
    private final String password;

    /**
     * Opens a browser without cookies.
     *
     * @param user who logs in
     * @param password with what
     */
    public Browser(String user, String password) {
        this.user = user;
        this.password = password;
    }

    /**
     * Visits a page and all that follow.
     *
     * @param url where to begin
     * @return the parameters that came back to {@link #REDIRECT_URI}; {@code page} and {@code status} if it ended elsewhere
     */
    public Map<String, String> visit(String url) {
        return follow(url, null);
    }

    /**
     * Sends a form and visits all pages that follow.
     *
     * @param url where to
     * @param form its fields
     * @return as {@link #visit}
     */
    public Map<String, String> submit(String url, Map<String, String> form) {
        return follow(url, encode(form));
    }

    private Map<String, String> follow(String first, String firstBody) {
        String url = first;
        String body = firstBody;
        for (int page = 0; page < 12; page++) {
            HttpResponse<String> response = send(url, body);
            String location = response.headers().firstValue("Location").orElse(null);
            if (location != null) {
                url = URI.create(url).resolve(location).toString();
                body = null;
                if (url.startsWith(REDIRECT_URI)) {
                    return decode(url);
                }
                continue;
            }
            Matcher form = FORM.matcher(response.body());
            if (response.statusCode() != 200 || !form.find()) {
                return Map.of("page", response.body(), "status", Integer.toString(response.statusCode()));
            }
            Map<String, String> fields = fields(form.group(2));
            String action = attributes(form.group(1)).getOrDefault("action", url);
            url = URI.create(url).resolve(action.replace("&amp;", "&")).toString();
            body = encode(fields);
        }
        return Map.of("page", "too many pages", "status", "0");
    }

    private Map<String, String> fields(String form) {
        Map<String, String> fields = new LinkedHashMap<>();
        for (Matcher field = FIELD.matcher(form); field.find();) {
            Map<String, String> attributes = attributes(field.group(1));
            String name = attributes.getOrDefault("name", "");
            switch (name) {
                case "", "cancel", "rememberMe", "deny" -> { }
                case "username" -> fields.put(name, user);
                case "password" -> fields.put(name, password);
                default -> fields.put(name, attributes.getOrDefault("value", "").replace("&amp;", "&"));
            }
        }
        return fields;
    }

    private static Map<String, String> attributes(String tag) {
        Map<String, String> attributes = new LinkedHashMap<>();
        for (Matcher attribute = ATTRIBUTE.matcher(tag); attribute.find();) {
            attributes.put(attribute.group(1), attribute.group(2));
        }
        return attributes;
    }

    private HttpResponse<String> send(String url, String body) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(120)).header("Accept", "text/html");
        if (!cookies.isEmpty()) {
            request.header("Cookie", cookies.entrySet().stream().map(cookie -> cookie.getKey() + "=" + cookie.getValue())
                    .collect(Collectors.joining("; ")));
        }
        if (body != null) {
            request.header("Content-Type", "application/x-www-form-urlencoded").POST(HttpRequest.BodyPublishers.ofString(body));
        }
        try {
            HttpResponse<String> response = http.send(request.build(), HttpResponse.BodyHandlers.ofString());
            for (String cookie : response.headers().allValues("Set-Cookie")) {
                String pair = cookie.split(";", 2)[0];
                cookies.put(pair.substring(0, pair.indexOf('=')), pair.substring(pair.indexOf('=') + 1));
            }
            return response;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(error);
        }
    }

    /**
     * Encodes parameters for a query or a form.
     *
     * @param parameters what to encode
     * @return such as {@code a=1&b=2}
     */
    public static String encode(Map<String, String> parameters) {
        return parameters.entrySet().stream()
                .map(parameter -> URLEncoder.encode(parameter.getKey(), StandardCharsets.UTF_8) + "="
                        + URLEncoder.encode(parameter.getValue(), StandardCharsets.UTF_8))
                .collect(Collectors.joining("&"));
    }

    private static Map<String, String> decode(String url) {
        Map<String, String> parameters = new LinkedHashMap<>();
        for (String pair : URI.create(url).getRawQuery().split("&")) {
            int equals = pair.indexOf('=');
            parameters.put(pair.substring(0, equals), URLDecoder.decode(pair.substring(equals + 1), StandardCharsets.UTF_8));
        }
        return parameters;
    }
}
