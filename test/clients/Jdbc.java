// The calls of calls.txt with JDBC: java Jdbc.java CALLS DATABASE...; see psycopg3.py

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PGobject;

public class Jdbc {
    static final int DEADLINE = 300_000;
    static final Pattern LINE = Pattern.compile("(?:(once|fetch|error|listen|told|session):)? ?(.*)");

    /** How to make the calls: options in the URL of the connection, and the name that is printed. */
    static class Way {
        final String name, options;
        final boolean first, bare, pooled;

        Way(String name, String options, boolean first, boolean bare, boolean pooled) {
            this.name = name;
            this.options = options;
            this.first = first;
            this.bare = bare;
            this.pooled = pooled;
        }
    }

    static final List<Way> WAYS = List.of(
        new Way("plain", "", true, false, false),
        new Way("prepared, binary", "prepareThreshold=-1", false, false, false),
        new Way("simple protocol", "preferQueryMode=simple", false, false, false),
        new Way("without casts", "", false, true, false),
        new Way("without types", "stringtype=unspecified", false, true, false),
        new Way("pooled", "prepareThreshold=0", false, false, true));

    static PrintStream out;

    static Object element(String type, String text) throws SQLException {
        if (text.equals("NULL")) {
            return null;
        }
        switch (type) {
            case "integer": return Integer.valueOf(text);
            case "bigint": return Long.valueOf(text);
            case "timestamptz": return OffsetDateTime.parse(text);
            case "jsonb":
                PGobject object = new PGobject();
                object.setType("jsonb");
                object.setValue(text);
                return object;
            default: return text;
        }
    }

    static void bind(PreparedStatement statement, int number, String argument) throws SQLException {
        String type = argument.substring(0, argument.indexOf(' '));
        String text = argument.substring(type.length() + 1);

        if (type.endsWith("[]") && !text.equals("NULL")) {
            String name = type.substring(0, type.length() - 2);
            String[] parts = text.split(" ; ");
            Object[] elements = new Object[parts.length];

            for (int i = 0; i < parts.length; i++) {
                elements[i] = name.equals("jsonb") && !parts[i].equals("NULL") ? parts[i] : element(name, parts[i]);
            }
            statement.setArray(number, statement.getConnection().createArrayOf(name.equals("bigint") ? "int8" : name, elements));
            return;
        }
        Object value = element(type, text);
        if (value != null) {
            statement.setObject(number, value);
        } else {
            statement.setNull(number, type.equals("integer") ? Types.INTEGER : type.equals("bigint") ? Types.BIGINT : Types.OTHER);
        }
    }

    static String show(Object value) throws SQLException {
        return value == null ? "null" : value.getClass().getSimpleName() + ":" + value;
    }

    static void printResult(Statement statement) throws SQLException {
        ResultSet rows = statement.getResultSet();

        if (rows == null) {
            out.println("done " + statement.getUpdateCount());
            return;
        }
        ResultSetMetaData columns = rows.getMetaData();
        StringBuilder line = new StringBuilder("columns");
        for (int i = 1; i <= columns.getColumnCount(); i++) {
            line.append(" " + columns.getColumnLabel(i) + ":" + columns.getColumnTypeName(i));
        }
        out.println(line);
        while (rows.next()) {
            line = new StringBuilder("row");
            for (int i = 1; i <= columns.getColumnCount(); i++) {
                line.append((i > 1 ? " | " : " ") + columns.getColumnLabel(i) + "=" + show(rows.getObject(i)));
            }
            out.println(line);
        }
        rows.close();
    }

    static void printWarnings(Statement statement) throws SQLException {
        for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
            out.println("notice " + warning.getSQLState() + " " + warning.getMessage());
        }
    }

    static void execute(Connection connection, String sql, String[] parts, boolean fetch) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 1; i < parts.length; i++) {
                bind(statement, i, parts[i]);
            }
            if (fetch) {
                // rows come a few at a time only inside of a transaction
                connection.setAutoCommit(false);
                statement.setFetchSize(2);
            }
            try {
                statement.execute();
                printWarnings(statement);
                printResult(statement);
            } finally {
                if (fetch) {
                    connection.setAutoCommit(true);
                }
            }
        } catch (SQLException error) {
            out.println("error " + error.getSQLState() + " " + error.getMessage().split("\n")[0]);
        }
    }

    static void awaitNotification(Connection connection) throws SQLException {
        PGNotification[] told = connection.unwrap(PGConnection.class).getNotifications(DEADLINE);

        if (told != null && told.length > 0) {
            out.println("told " + told[0].getName() + " '" + told[0].getParameter() + "'");
        }
    }

    static void run(Way way, String database, List<String> lines) throws SQLException {
        String port = System.getenv(way.pooled ? "POOLER_PORT" : "PGPORT");
        String url = "jdbc:postgresql://127.0.0.1:" + port + "/" + database + "?user=" + System.getenv("PGUSER") + "&" + way.options;

        out.println("== " + database + " JDBC, " + way.name);
        try (Connection connection = DriverManager.getConnection(url)) {
            for (String line : lines) {
                Matcher matcher = LINE.matcher(line);
                if (line.isEmpty() || line.startsWith("#") || !matcher.matches()) {
                    continue;
                }
                String mark = matcher.group(1) == null ? "" : matcher.group(1);
                String[] parts = matcher.group(2).split(" \\| ");
                if (mark.equals("once") && !way.first || way.pooled && List.of("listen", "told", "session").contains(mark)) {
                    continue;
                }
                out.println("-- " + mark + " " + parts[0]);
                if (mark.equals("listen")) {
                    try (Statement statement = connection.createStatement()) {
                        statement.execute("LISTEN \"" + parts[0] + "\"");
                    }
                } else if (mark.equals("told")) {
                    awaitNotification(connection);
                } else {
                    String sql = way.bare ? parts[0].replaceAll("(\\$\\d+)::[a-z]+(\\[\\])?", "$1") : parts[0];
                    execute(connection, sql.replaceAll("\\$\\d+", "?"), parts, mark.equals("fetch"));
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        List<String> lines = Files.readAllLines(Path.of(arguments[0]), StandardCharsets.UTF_8);

        out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (Way way : WAYS) {
            if (way.pooled && System.getenv("POOLER_PORT") == null) {
                continue;
            }
            for (int i = 1; i < arguments.length; i++) {
                run(way, arguments[i], lines);
            }
        }
    }
}
