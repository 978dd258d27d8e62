from simulation.report_page import Meter, duration, folded, number, size, stack, table, tag, text


def test_what_is_not_html_is_escaped_once() -> None:
    assert text("<b> & 'c'") == "&lt;b&gt; &amp; &#x27;c&#x27;"
    assert tag("p", tag("b", "<"), class_='"x') == '<p class="&quot;x"><b>&lt;</b></p>'
    assert folded("<t>", tag("p", "x")) == "<details><summary>&lt;t&gt;</summary><p>x</p></details>"


def test_a_table_has_words_and_numbers() -> None:
    html = table(["site", "Dice"], [["<a>", Meter(0.5)], ["b", Meter(None)], ["c", None]], strong=[0])
    assert '<tr class="strong"><td class="word">&lt;a&gt;</td>' in html
    assert '<i style="--part: 50.0%"></i><span>0.500</span>' in html
    assert '<i style="--part: 0.0%"></i><span>–</span>' in html
    assert html.endswith('<td class="word">c</td><td>–</td></tr></tbody></table></div>')


def test_shares_add_up_even_when_there_are_none() -> None:
    assert "width: 75.00%" in stack({"train": 3.0, "other": 1.0}, "s")
    assert "width: 0.00%" in stack({"train": 0.0, "other": 0.0}, "s")


def test_numbers_are_written_for_people() -> None:
    assert [number(None), number(0.5), number(1234.5, 1)] == ["–", "0.500", "1,234.5"]
    assert [size(12), size(7612416), size(2.5e9)] == ["12 B", "7.61 MB", "2.5 GB"]
    assert [duration(0.34), duration(61), duration(7260)] == ["0.3 s", "1 min 1 s", "2 h 1 min"]
