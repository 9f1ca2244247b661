/*
 * pattern.c
 *	  Routing keys and topic patterns: which of them are valid, and which
 *	  patterns match a key.
 *
 * A pattern is matched against a whole key.  "*" stands for one or more
 * characters that are no dots, "#" for any characters, also for none; anything
 * else stands for itself.  Both may stand anywhere, inside a segment too.
 *
 * Many patterns are matched at once.  They are put into a tree by their common
 * beginnings: a node is a piece of text, or a wildcard, and stands for
 * everything from the root to its end.  The key is scanned once, with the set
 * of nodes whose beginning of a pattern matches the part scanned so far.  So
 * the cost depends on the beginnings that match the key, not on the number of
 * patterns.  It is never more than nodes times characters, because a node is in
 * the set of a position at most once.
 *
 * The tree lives in one memory context, the caller's current one, and is
 * written to while it matches: one match at a time.
 */
#include "pgmq.h"

#include "lib/qunique.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "topic/topic.h"

PG_FUNCTION_INFO_V1(pgmq_validate_routing_key);
PG_FUNCTION_INFO_V1(pgmq_validate_topic_pattern);

/* ---- what is valid ---- */

#define TOPIC_ERROR(...) \
	ereport(ERROR, (errcode(ERRCODE_RAISE_EXCEPTION), errmsg(__VA_ARGS__)))

/* The characters of a routing key */
static bool
is_key_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

static bool
is_wildcard(char c)
{
	return c == '*' || c == '#';
}

/*
 * The rules for both keys and patterns, in the order in which the first fault
 * is reported.  Returns the text.
 */
static char *
valid_topic(FunctionCallInfo fcinfo, int argno, const char *what,
			bool wildcards, const char *allowed)
{
	char	   *topic = PG_ARGISNULL(argno) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(argno));
	int			len = (int) strlen(topic);
	int			i;

	if (len == 0)
		TOPIC_ERROR("%s cannot be NULL or empty", what);
	if (len > TOPIC_MAX_LENGTH && pg_mbstrlen_with_len(topic, len) > TOPIC_MAX_LENGTH)
		TOPIC_ERROR("%s length cannot exceed %d characters, got %d characters",
					what, TOPIC_MAX_LENGTH, pg_mbstrlen_with_len(topic, len));
	for (i = 0; i < len; i++)
	{
		if (!is_key_character(topic[i]) && !(wildcards && is_wildcard(topic[i])))
			TOPIC_ERROR("%s contains invalid characters. Only %s are allowed. Got: %s",
						what, allowed, topic);
	}
	if (topic[0] == '.')
		TOPIC_ERROR("%s cannot start with a dot. Got: %s", what, topic);
	if (topic[len - 1] == '.')
		TOPIC_ERROR("%s cannot end with a dot. Got: %s", what, topic);
	if (strstr(topic, "..") != NULL)
		TOPIC_ERROR("%s cannot contain consecutive dots. Got: %s", what, topic);
	return topic;
}

/* The argument, which must be a routing key; palloc'd */
char *
pattern_valid_key(FunctionCallInfo fcinfo, int argno)
{
	return valid_topic(fcinfo, argno, "routing_key", false,
					   "alphanumeric, dots, hyphens, and underscores");
}

/* The argument, which must be a pattern; palloc'd */
char *
pattern_valid_pattern(FunctionCallInfo fcinfo, int argno)
{
	char	   *pattern = valid_topic(fcinfo, argno, "pattern", true,
									  "alphanumeric, dots, hyphens, underscores, *, and #");

	if (strstr(pattern, "**") != NULL)
		TOPIC_ERROR("pattern cannot contain consecutive stars (**). Use # for multi-segment matching. Got: %s", pattern);
	if (strstr(pattern, "##") != NULL)
		TOPIC_ERROR("pattern cannot contain consecutive hashes (##). A single # already matches zero or more segments. Got: %s", pattern);
	if (strstr(pattern, "*#") != NULL || strstr(pattern, "#*") != NULL)
		TOPIC_ERROR("pattern cannot contain adjacent wildcards (*# or #*). Separate wildcards with dots. Got: %s", pattern);
	return pattern;
}

/* pgmq.validate_routing_key(routing_key text) -> boolean */
Datum
pgmq_validate_routing_key(PG_FUNCTION_ARGS)
{
	(void) pattern_valid_key(fcinfo, 0);
	PG_RETURN_BOOL(true);
}

/* pgmq.validate_topic_pattern(pattern text) -> boolean */
Datum
pgmq_validate_topic_pattern(PG_FUNCTION_ARGS)
{
	(void) pattern_valid_pattern(fcinfo, 0);
	PG_RETURN_BOOL(true);
}

/* ---- the tree ---- */

typedef struct PatternNode
{
	const char *label;			/* one wildcard, or text without any */
	uint32		first_child;	/* children are sorted by their first byte */
	uint32		first_value;	/* of the patterns that end here */
	uint32		nvalues;
	uint32		stamp;			/* of the last visit to a wildcard; see reach() */
	uint16		nchildren;
	uint16		label_len;
} PatternNode;

struct PatternTree
{
	PatternNode *nodes;			/* the root is the first */
	uint32		count;
	uint32		capacity;
	uint32	   *values;			/* of all patterns, in the order of the tree */
	uint32		epoch;			/* stamps of earlier matches are below it */
};

/* No node: the root is not a child */
#define NO_NODE 0

/*
 * Copy a pattern to "to" in a normal form.  The table may hold patterns that
 * bind_topic() would refuse, and several hashes in a row mean the same as one.
 * Returns the length, or -1 for a pattern that no routing key matches.  So a
 * pattern in this form has at most twice as many characters as a key, and one
 * more.
 */
static int
normalize(const PatternEntry *entry, char *to)
{
	int			len = 0;
	int			least = 0;		/* characters in a key that matches */
	int			i;

	for (i = 0; i < entry->len; i++)
	{
		char		c = entry->pattern[i];

		if (c == '#' && len > 0 && to[len - 1] == '#')
			continue;
		if (!is_key_character(c) && !is_wildcard(c))
			return -1;
		if (c != '#' && ++least > TOPIC_MAX_LENGTH)
			return -1;
		to[len++] = c;
	}
	return len == 0 ? -1 : len;
}

/* The patterns that may match something, normalized in one piece of memory; how many */
static uint32
normalize_all(PatternEntry *entries, uint32 count)
{
	Size		size = 0;
	char	   *text;
	uint32		kept = 0;
	uint32		i;

	for (i = 0; i < count; i++)
		size += entries[i].len;
	text = MemoryContextAllocHuge(CurrentMemoryContext, size + 1);
	for (i = 0; i < count; i++)
	{
		int			len = normalize(&entries[i], text);

		CHECK_FOR_INTERRUPTS();
		if (len < 0)
			continue;
		entries[kept].pattern = text;
		entries[kept].len = len;
		entries[kept].value = entries[i].value;
		text += len;
		kept++;
	}
	return kept;
}

/* By bytes; a prefix comes before longer patterns, wildcards before all other characters */
static int
compare_entries(const void *a, const void *b)
{
	const PatternEntry *left = a;
	const PatternEntry *right = b;
	int			result = memcmp(left->pattern, right->pattern, Min(left->len, right->len));

	return result != 0 ? result : left->len - right->len;
}

/* A node for the patterns from first to last, which have the byte at "depth" in common */
static void
add_node(PatternTree *tree, const PatternEntry *first, const PatternEntry *last, int depth)
{
	PatternNode *node;
	int			end = depth + 1;

	if (tree->count == tree->capacity)
	{
		tree->capacity *= 2;
		tree->nodes = repalloc_huge(tree->nodes, sizeof(PatternNode) * tree->capacity);
	}
	if (!is_wildcard(first->pattern[depth]))
	{
		while (end < first->len && end < last->len &&
			   first->pattern[end] == last->pattern[end] && !is_wildcard(first->pattern[end]))
			end++;
	}
	node = &tree->nodes[tree->count++];
	memset(node, 0, sizeof(*node));
	node->label = first->pattern + depth;
	node->label_len = end - depth;
}

/* How many of the patterns from "first" on have the same byte at "depth" */
static uint32
group_size(const PatternEntry *entries, uint32 first, uint32 end, int depth)
{
	uint32		i = first + 1;

	while (i < end && entries[i].pattern[depth] == entries[first].pattern[depth])
		i++;
	return i - first;
}

/*
 * Complete the node and all nodes below it.  The patterns are sorted; those
 * from first to end begin with the node's text, which has "depth" characters.
 */
static void
grow(PatternTree *tree, uint32 node, const PatternEntry *entries,
	 uint32 first, uint32 end, int depth)
{
	uint32		child = tree->count;
	uint32		i = first;
	uint32		size;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	while (i < end && entries[i].len == depth)
		i++;
	tree->nodes[node].first_value = first;
	tree->nodes[node].nvalues = i - first;
	tree->nodes[node].first_child = child;
	first = i;
	for (; i < end; i += size)
	{
		size = group_size(entries, i, end, depth);
		add_node(tree, &entries[i], &entries[i + size - 1], depth);
	}
	tree->nodes[node].nchildren = tree->count - child;
	for (i = first; i < end; i += size, child++)
	{
		size = group_size(entries, i, end, depth);
		grow(tree, child, entries, i, i + size, depth + tree->nodes[child].label_len);
	}
}

/*
 * The tree of some patterns, in the current memory context.  The entries are
 * used up; what they point to is copied.
 */
PatternTree *
pattern_tree(PatternEntry *entries, uint32 count)
{
	PatternTree *tree = palloc0(sizeof(PatternTree));
	uint32		i;

	count = normalize_all(entries, count);
	qsort(entries, count, sizeof(PatternEntry), compare_entries);
	tree->values = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(uint32) * (Size) Max(count, 1));
	for (i = 0; i < count; i++)
		tree->values[i] = entries[i].value;
	tree->capacity = 64;
	tree->nodes = palloc0(sizeof(PatternNode) * tree->capacity);
	tree->count = 1;
	tree->epoch = 1;
	grow(tree, 0, entries, 0, count, 0);
	return tree;
}

/* ---- matching ---- */

/* A node whose text, from the root on, matches the key up to a position */
typedef struct State
{
	uint32		node;
	int			next;			/* at the same position, or -1 */
} State;

typedef struct Match
{
	PatternTree *tree;
	const char *key;
	int			len;
	int			states_at[TOPIC_MAX_LENGTH + 1];	/* the first at each position, or -1 */
	State	   *states;
	int			nstates;
	int			states_size;
	int			unused;			/* a list of states that are done with, or -1 */
	uint32	   *found;
	uint32		nfound;
	uint32		found_size;
} Match;

static void
put_state(Match *match, uint32 node, int position)
{
	int			state = match->unused;

	if (state >= 0)
		match->unused = match->states[state].next;
	else
	{
		if (match->nstates == match->states_size)
		{
			match->states_size *= 2;
			match->states = repalloc_huge(match->states, sizeof(State) * match->states_size);
		}
		state = match->nstates++;
	}
	match->states[state].node = node;
	match->states[state].next = match->states_at[position];
	match->states_at[position] = state;
}

/* Remove a state from those at a position and return its node; false if there is none */
static bool
take_state(Match *match, int position, uint32 *node)
{
	int			state = match->states_at[position];

	if (state < 0)
		return false;
	*node = match->states[state].node;
	match->states_at[position] = match->states[state].next;
	match->states[state].next = match->unused;
	match->unused = state;
	return true;
}

static void
report(Match *match, const PatternNode *node)
{
	if (match->nfound + node->nvalues > match->found_size)
	{
		match->found_size = Max(match->found_size * 2, match->nfound + node->nvalues);
		match->found = repalloc_huge(match->found, sizeof(uint32) * (Size) match->found_size);
	}
	memcpy(match->found + match->nfound, match->tree->values + node->first_value,
		   sizeof(uint32) * node->nvalues);
	match->nfound += node->nvalues;
}

/*
 * A wildcard is reached at a position.  Only wildcards can be reached in two
 * ways: from their parent, and from themselves one character earlier.
 * Positions are handled in order, so the last stamp shows whether a wildcard
 * was reached already.  A hash that was reached once stays in the set until the
 * end.
 */
static void
reach(Match *match, uint32 index, int position)
{
	PatternNode *node = &match->tree->nodes[index];
	uint32		epoch = match->tree->epoch;
	bool		hash = node->label[0] == '#';

	if (hash ? node->stamp >= epoch : node->stamp == epoch + position)
		return;
	node->stamp = epoch + position;
	if (hash && node->nchildren == 0)
		report(match, node);	/* whatever follows */
	else
		put_state(match, index, position);
}

/* The child that begins with this byte */
static uint32
find_child(const PatternTree *tree, const PatternNode *node, char first)
{
	uint32		low = node->first_child;
	uint32		high = low + node->nchildren;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;
		char		c = tree->nodes[middle].label[0];

		if (c == first)
			return middle;
		if (c < first)
			low = middle + 1;
		else
			high = middle;
	}
	return NO_NODE;
}

/* Reach what follows a node that matches the key up to a position */
static void
advance(Match *match, uint32 index, int position)
{
	const PatternNode *nodes = match->tree->nodes;
	const PatternNode *node = &nodes[index];
	uint32		child = node->first_child;
	uint32		end = child + node->nchildren;
	char		wildcard = '\0';
	char		c;

	if (index > 0 && is_wildcard(node->label[0]))
		wildcard = node->label[0];
	if (position == match->len)
		report(match, node);
	/* '#' and '*' sort before all characters of a key, so they are the first children */
	if (child < end && nodes[child].label[0] == '#')
		reach(match, child++, position);
	if (position == match->len)
		return;

	c = match->key[position];
	if (wildcard == '#')
		put_state(match, index, position + 1);
	else if (wildcard == '*' && c != '.')
		reach(match, index, position + 1);
	if (child < end && nodes[child].label[0] == '*')
	{
		if (c != '.')
			reach(match, child, position + 1);
		child++;
	}
	if (child == end || (child = find_child(match->tree, node, c)) == NO_NODE)
		return;
	if (nodes[child].label_len <= match->len - position &&
		memcmp(nodes[child].label, match->key + position, nodes[child].label_len) == 0)
		put_state(match, child, position + nodes[child].label_len);
}

/* Make the stamps of all earlier matches old */
static void
new_epoch(PatternTree *tree)
{
	uint32		i;

	if (tree->epoch > PG_UINT32_MAX - 2 * (TOPIC_MAX_LENGTH + 1))
	{
		for (i = 0; i < tree->count; i++)
			tree->nodes[i].stamp = 0;
		tree->epoch = 0;
	}
	tree->epoch += TOPIC_MAX_LENGTH + 1;
}

static int
compare_values(const void *a, const void *b)
{
	return pg_cmp_u32(*(const uint32 *) a, *(const uint32 *) b);
}

/*
 * The values of the patterns that match a valid routing key, in their order, each once.
 * Returns their number.
 */
uint32
pattern_match(PatternTree *tree, const char *key, uint32 **values)
{
	Match		match;
	uint32		node;
	int			position;

	match.tree = tree;
	match.key = key;
	match.len = (int) strlen(key);
	if (match.len > TOPIC_MAX_LENGTH)
		elog(ERROR, "routing key of %d bytes has not been checked", match.len);
	memset(match.states_at, -1, sizeof(match.states_at));
	match.unused = -1;
	match.nstates = 0;
	match.states_size = 64;
	match.states = palloc(sizeof(State) * match.states_size);
	match.nfound = 0;
	match.found_size = 16;
	match.found = palloc(sizeof(uint32) * match.found_size);

	new_epoch(tree);
	put_state(&match, 0, 0);
	for (position = 0; position <= match.len; position++)
	{
		CHECK_FOR_INTERRUPTS();
		while (take_state(&match, position, &node))
			advance(&match, node, position);
	}
	pfree(match.states);
	if (match.nfound > 1)
		qsort(match.found, match.nfound, sizeof(uint32), compare_values);
	*values = match.found;
	return qunique(match.found, match.nfound, sizeof(uint32), compare_values);
}
