// Reads a JSON string of ASCII from each line, prints scheme, host and port as java.net.URI (or, with the argument `url`,
// java.net.URL) sees them, or null.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.MalformedURLException;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.URL;

class Read {
    public static void main(String[] arguments) throws Exception {
        boolean old = arguments.length > 0 && arguments[0].equals("url");
        var lines = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = lines.readLine()) != null; ) {
            System.out.println(read(unquote(line), old));
        }
    }

    private static String read(String text, boolean old) {
        try {
            if (old) {
                URL url = new URL(text);
                return found(url.getProtocol(), url.getHost(), url.getPort());
            }
            URI uri = new URI(text);
            return found(uri.getScheme(), uri.getHost(), uri.getPort());
        } catch (MalformedURLException | URISyntaxException error) {
            return "null";
        }
    }

    private static String found(String scheme, String host, int port) {
        return "[" + quote(scheme) + ", " + quote(host) + ", " + quote(port < 0 ? "" : Integer.toString(port)) + "]";
    }

    private static String quote(String text) {
        var quoted = new StringBuilder("\"");
        for (char unit : (text == null ? "" : text).toCharArray()) {
            if (unit < 0x20 || unit > 0x7e || unit == '"' || unit == '\\') {
                quoted.append(String.format("\\u%04x", (int) unit));
            } else {
                quoted.append(unit);
            }
        }
        return quoted.append('"').toString();
    }

    private static String unquote(String json) {
        var text = new StringBuilder();
        for (int at = 1; at < json.length() - 1; at++) {
            char unit = json.charAt(at);
            if (unit != '\\') {
                text.append(unit);
                continue;
            }
            unit = json.charAt(++at);
            switch (unit) {
                case 'u' -> {
                    text.append((char) Integer.parseInt(json.substring(at + 1, at + 5), 16));
                    at += 4;
                }
                case 't' -> text.append('\t');
                case 'n' -> text.append('\n');
                case 'r' -> text.append('\r');
                default -> text.append(unit);
            }
        }
        return text.toString();
    }
}
